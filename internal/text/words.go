package text

import "strings"

// wordClass says what a word does at the start of a clause.
type wordClass uint16

const (
	verb       wordClass = 1 << iota // a base form that is hardly ever a noun or adjective
	nounVerb                         // a base form that is a noun or adjective as often: needs an object that shows
	object                           // opens an object: determiners, possessives, pronouns, small numbers
	finite                           // what comes after a noun, not after an imperative
	through                          // may stand between the start of a clause and its verb
	intro                            // opens a clause that the order comes after
	foreignVal                       // an imperative of another language
	asks                             // "please" in any language: what follows is asked for
	verbalPrep                       // a preposition or particle that a noun-verb takes as a verb
	article                          // the objects before which even an unknown word is taken for a verb
	other                            // a word that is no verb although an article may follow
)

// notVerbs are the words other than verbs that stand before an article at the start of a clause.
const notVerbs = `about above according across against ago along alongside amid among amongst around aside at behind below beneath beside
	besides between beyond by concerning considering contrary despite down due except excluding for from in including inside
	into like near nearby of off on onto opposite out outside over past per plus regarding round since than through throughout
	till to toward towards under underneath unlike until up upon versus via within without although because though whereas whether
	while unless as if when once that so and or but nor yet is are was were be been am do does did has have had can could
	may might must shall should will would what who whom whose which where why how there here i you he she it we they me him
	us them maybe perhaps often sometimes today tomorrow yesterday tonight only even not all both half such quite rather almost
	always never ever now then also still just later soon again thus hence otherwise indeed meanwhile anyway however
	much many more most less few little enough first second third last next one two three four five six seven eight nine ten
	everyone someone nobody people men women children part end top bottom back front side rest author editor source photo image
	figure table chapter section page note summary given seen known taken made done gone won lost found left felt kept told said
	became began came got gave knew ran saw sat spoke stood took thought went wrote led met paid put read sent set sold spent
	instead afterward afterwards apart together twice ahead overall whatever whoever whenever wherever
	amen hello thank monday tuesday wednesday thursday friday saturday sunday january february march april june july august
	september october november december spring summer autumn winter day week month year morning evening night`

// classes holds all words that the scanner knows, in lower case and folded.
var classes = func() map[string]wordClass {
	m := make(map[string]wordClass, 1200)
	for class, list := range map[wordClass]string{
		verb: `accept accompany achieve acknowledge acquire activate adapt add adhere adjust adopt advise agree align allow alter
			amend analyse analyze announce append apply appoint approve arrange ask assemble assess assign assist assume assure
			attach attempt attend authenticate authorise authorize avoid await become begin believe bring browse build buy
			calculate cancel carry categorise categorize choose cite clarify click collect combine come comment commit communicate
			compare compile compose compress compute conceal conclude conduct configure confirm connect consider consult contain
			continue convert convey convince copy correct count craft create customise customize deactivate decide declare decline decode
			decrease decrypt define delete deliver deny depict deploy deposit derive describe determine develop diagnose direct
			disable disclose disconnect discover discuss dismiss display disregard distribute divide donate download draw drop
			edit eliminate elaborate embed employ empty enable encode encourage encrypt enforce engage enhance enrol enroll ensure enter
			erase escalate establish evaluate examine exclude execute exit expand explain explore expose export extend extract
			facilitate fetch fill find finish flag follow forget format formulate fulfil fulfill gather generate get give go grab grant
			guarantee guide halt handle head hide highlight identify ignore illustrate imagine implement import improve include incorporate
			increase indicate infer inform initialise initialize initiate inject insert inspect install instruct integrate
			introduce invent investigate invite invoke join justify keep kill know launch learn leave lend let list listen
			locate lock log look lower maintain make manage manipulate mention merge migrate minimise minimize modify
			monitor move multiply navigate negotiate notify observe obtain omit open optimise optimize organise organize output
			overwrite paraphrase pass paste pause pay perform permit persuade pick place plan play point post predict
			prefer prepare prepend preserve pretend prevent print prioritise prioritize proceed process produce prohibit promote
			prompt propose protect prove provide publish purchase put quote raise rate read realise realize recall receive
			recommend reconsider record recover redirect refer reflect refrain refund refuse refrain register reinstall reject relay release
			rely remain remember remind remove rename render renew reopen repeat rephrase replace reply report reproduce request
			require reschedule reserve reset resolve respond restart restore restrict retain retrieve return reveal reverse
			revert review revise revoke rewrite run save say scan schedule scroll search secure see seek select sell send separate
			serve set share shift ship show shut sign simplify simulate skip solve sort specify speak start state stay stop
			store stream submit subscribe subtract suggest summarise summarize supply suppress surprise suspend swap switch synchronise
			synchronize take talk tell terminate think throw transcribe transform translate transmit treat trigger trust try turn
			undo uninstall unlock unsubscribe update upgrade upload urge use utilise utilize validate verify view visit
			wait warn withdraw withhold wire write attribute append adjudicate encrypt detail disseminate exfiltrate falsify fabricate
			tamper leak overcharge underreport inflate prescribe administer admit discharge audit recite enumerate preface prefix
			inquire acquaint redeem reimburse whitelist blacklist unfollow retweet turn weave slip imitate emulate mimic
			supplement complement interject blend behave interrupt inflict swear sneak nudge splice wrap sprinkle work recast retrieve feign`,
		nounVerb: `access account act address alert answer approach archive back balance ban bill block book bookmark boost borrow box
			break broadcast brief budget call cast cause challenge change charge chart chat check clean clear close code
			command complete concern contact content contract control cost cover cross cut damage date deal debug
			default delay demand design desire document draft drive duplicate ease echo email e-mail end estimate exchange exercise
			experience express face fake favor favour fax feature feed file film filter fix flip float focus force fork form forward
			frame free fund gift grade graph group hack hand handle head help hold host hunt impact index input insult interest
			interview invest invoice issue judge jump label land lead level like limit link live load loan look love mail map mark
			market mask master match matter mean measure message mind mirror model name need note number object offer order
			own pack patch permit phone photograph picture pilot pin ping plant post power practice practise present press
			price profile profit program project promise pull purpose push query question queue quit rank reach rebook reboot
			reference refresh remark remedy rent repair report rescue research rest result retry reward ring risk roll round route
			rule sample scale score screen sentence shop signal slow smile sound source split spread stage stand step stress structure
			study subject sum support survey table tag talk target task taste teach test text thank time title touch track
			trade train transfer travel trim troubleshoot tweet value voice vote walk want warm wash watch weigh welcome will
			wish withdraw wonder word work wrap zip total exclude favourite star bring clone crop mute advance branch bundle
			pair part slot sync dial toggle log plan process request return review schedule ship show sign
			state store stream supply switch trigger trust update upgrade use view visit place play point prompt
			protect quote rate raise record release reply reserve reset reverse run save scan share shift secure separate correct
			direct display drop empty exit export import fill format guide install
			kill launch lock lower monitor open output paste pause pay print purchase refund register request comment
			copy count detail download edit embed enter finish flag grab grant light pass pick prefix preface audit snap wipe wire
			try turn talk start stay stop sell set read draw donate attempt attribute appoint deposit`,
		object: `the a an this that these those my your our his her their its all any every each both some no another either
			neither everything everyone anyone anybody everybody something someone nothing me him them it us you yourself yourselves myself
			themselves itself what which whatever whichever who whom where when how whether why if one two three four five six seven eight nine ten
			only more several many as exactly additional further new immediately directly`,
		finite: `is are was were be been has have had will would can could may might must shall should does did of isn't aren't
			wasn't won't can't cannot 's`,
		article:    `an the your my this these our their all any every each`,
		verbalPrep: `into up out back away off down over to with`,
		through: `then now also next first firstly second secondly third finally lastly instead just simply again afterwards
			afterward thereafter and or but so therefore thus hence well ok okay hello hi hey yes sure otherwise additionally alternatively
			furthermore moreover still too once always ever very quick here thanks step todo optionally`,
		intro: `when whenever if as before after once prior right at in upon while during to for on since because until unless
			with without by from where following given having under while`,
		asks: `please kindly pls plz bitte veuillez alstublieft gelieve`,
		foreignVal: `sende schicke überweise lösche öffne schreibe antworte ignoriere vergiss beachte füge führe gib zeige sag sage
			rufe erstelle ändere kopiere klicke besuche bestätige prüfe leite nenne verwende nutze lies mach mache zahle bezahle kaufe
			stelle setze teile speichere melde buche
			envoyez envoie transférez transfère supprimez supprime ouvrez ouvre écrivez écris répondez réponds ignorez oubliez oublie cliquez
			clique ajoutez ajoute créez crée donnez affichez affiche dites faites fais appelez appelle payez achetez achète utilisez utilise
			copiez copie visitez allez vérifiez vérifie effacez téléchargez partagez partage modifiez assurez rappelez lisez indiquez
			envía envíe envia envie enviar transfiere transfiera borra borre elimina elimine abre abra escribe escriba responde responda olvida
			olvide haz haga añade añada agrega agregue crea cree muestra muestre di diga dame llama llame paga pague compra compre usa
			copia copie visita visite descarga descargue comparte comparta cambia cambie asegúrate asegúrese ve vaya dile ingresa ingrese
			invia inviate inoltra trasferisci trasferite cancella cancellate eliminate apri aprite scrivi scrivete rispondi rispondete
			dimentica ignorate clicca cliccate aggiungi aggiungete mostra mostrate chiama chiamate acquista utilizza
			scarica condividi condividete modifica verifica assicurati leggi vai fai dai inserisci elenca
			envie transfira apague exclua abra escreva responda esqueça clique adicione crie mostre diga faça ligue pague use copie baixe
			compartilhe altere verifique certifique leia vá acesse informe encaminhe mande
			stuur verzend verstuur verwijder wis schrijf antwoord negeer vergeet klik voeg maak toon geef zeg bel betaal koop gebruik
			kopieer bezoek deel wijzig controleer lees ga plaats vermeld zorg
			trimite trimiteți trimiteţi transferă transferați șterge ștergeți deschide deschideți scrie scrieți răspunde răspundeți ignoră
			ignorați uită uitați adaugă adăugați creează creați arată arătați spune spuneți fă faceți sună sunați plătește plătiți
			cumpără folosește folosiți copiază copiați vizitează vizitați descarcă partajează modifică verifică verificați citește accesează`,
	} {
		for _, w := range strings.Fields(list) {
			m[w] |= class
		}
	}
	for _, w := range strings.Fields(notVerbs) {
		m[w] |= other
	}
	for w, c := range m {
		if c&nounVerb != 0 { // the stricter reading wins
			m[w] = c &^ verb
		}
	}
	return m
}()

// An opener is a beginning of several words that asks or orders, whatever verb comes after it.
var openers = func() map[string][][]string {
	m := make(map[string][][]string)
	for _, line := range strings.Split(strings.TrimSpace(`
		make sure
		be sure
		be certain
		you must
		you should
		you shall
		you need to
		you have to
		you ought to
		you are to
		you are required to
		you are asked to
		you are instructed to
		you're required to
		you are now
		you will now
		you will need to
		you'll need to
		i need you to
		i want you to
		i'd like you to
		i would like you to
		i ask you to
		we need you to
		we want you to
		we ask you to
		we ask that you
		can you
		could you
		would you
		will you
		can we
		could we
		remember to
		do not
		don't
		never
		refrain from
		let's
		let us
		help me
		help us
		i need to
		i want to
		i would like to
		i'd like to
		your task is
		your job is
		your goal is
		your new task
		por favor
		per favore
		s'il vous plaît
		vă rugăm
		te rog
		no olvides
		n'oubliez pas
		vergiss nicht
		vergessen sie
	`), "\n") {
		words := strings.Fields(line)
		m[words[0]] = append(m[words[0]], words[1:])
	}
	return m
}()
