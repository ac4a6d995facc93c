package flow

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/policy"
	"github.com/fairleadhq/fairlead/internal/text"
)

// An action is a kind of deed that verbs in sentences and names of tools are compared by.
type action uint8

const (
	noAction action = iota
	lookUp
	visit
	send
	publish
	pay
	trade
	remove
	create
	change
	grant
	revoke
	arrange
	cancel
	join
	execute
	operate
	save
	submit
)

// verbs gives the action of each verb by its base form. Words that are nouns at least as often are in ambiguous, too.
var verbs = index(map[action]string{
	lookUp: `analyze analyse browse calculate check collect compare compute count describe determine diagnose display
		estimate evaluate examine explain extract fetch find gather download get identify inspect list locate look lookup monitor
		observe obtain preview print query read recall resolve retrieve review scan search see select show sort summarize
		summarise tell think trace track translate validate verify view watch compile`,
	visit: `access browse click follow load navigate open visit request`,
	send: `cc communicate contact deliver dispatch email e-mail fax forward mail message notify reply respond ring send
		text transmit write convey relay inform alert dm exfiltrate leak`,
	publish: `announce broadcast disclose display expose post publish reveal share tweet upload comment`,
	pay:     `donate deposit fund pay refund reimburse remit settle transact transfer wire withdraw tip charge`,
	trade:   `bid buy exchange order purchase sell stake trade swap liquidate checkout subscribe`,
	remove: `clear delete destroy discard drop erase format purge remove trash uninstall unsubscribe wipe kick ban shred
		deactivate disable terminate kill stop`,
	create: `add append attach author build compose copy create draft duplicate generate insert log make plant prepare
		record register produce`,
	change: `adjust alter apply assign change configure correct edit fix modify move overwrite patch put raise rename
		replace reschedule reset set switch update increase decrease lower transform mark rate rewrite set-up`,
	grant:   `allow approve authorize authorise delegate enable give grant permit promote provide whitelist confirm`,
	revoke:  `block deny lock reject revoke suspend`,
	arrange: `arrange book organize plan reserve schedule set-up enroll`,
	cancel:  `abort cancel decline postpone`,
	join:    `add connect enroll follow include invite join link recruit`,
	execute: `execute invoke launch perform run start trigger install call deploy inject implant exploit bypass use
		complete carry do finish initiate conduct administer`,
	operate: `go guide move walk activate arm close control disarm drive grab open press shut steer turn unlock dim adjust manipulate
		control adjust dispatch`,
	save:   `archive backup export import store save sync`,
	submit: `claim enter file fill hand input report sign submit vote provide upload apply`,
})

// ambiguous are verbs that are nouns or adjectives as often: what follows must be an object.
var ambiguous = set(`access answer approach arm backup ban bid block book call charge check claim clear close comment
	complete contact control copy cost deposit display do dispatch draft drive drop e-mail email end estimate exchange export fax file
	fill find fix format forward found fund go grab grant help hide import input journal judge lead like link list load
	lock log look lower mail make mark match message monitor move name note offer open order pass patch place plan plant
	play point post present press preview print produce program project promise query quote raise rank rate read record
	refund release remark remove repeat reply report request reserve reset result return review ring run scan schedule
	search secure see select set share show sign sort stake stand start state stop store study subject supply support
	swap switch sync talk tell test text think tip title total trace track trade transfer trash try turn tweet type
	update upload use view visit vote wait watch welcome wire work write sell enter complete correct save see sync`)

// actions is a set of kinds of deed.
type actions uint32

func (a action) set() actions {
	if a == noAction {
		return 0
	}
	return 1 << a
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

func index(groups map[action]string) map[string]action {
	m := map[string]action{}
	for a := lookUp; a <= submit; a++ { // in this order, so that the first meaning of a word is kept
		for _, w := range strings.Fields(groups[a]) {
			if _, ok := m[w]; !ok {
				m[w] = a
			}
		}
	}
	return m
}

// base gives the verb that w is a form of, and its action; "" if it is none that we know.
func base(w string) (string, action) {
	if a, ok := verbs[w]; ok {
		return w, a
	}
	try := func(s string) (string, action) {
		if a, ok := verbs[s]; ok && len(s) > 1 {
			return s, a
		}
		return "", noAction
	}
	for _, suffix := range [...]string{"ing", "ed", "es", "s", "ion", "ment"} {
		s, ok := strings.CutSuffix(w, suffix)
		if !ok || len(s) < 2 {
			continue
		}
		if b, a := try(s); b != "" {
			return b, a
		}
		if b, a := try(s + "e"); b != "" {
			return b, a
		}
		if n := len(s); n > 2 && s[n-1] == s[n-2] {
			if b, a := try(s[:n-1]); b != "" {
				return b, a
			}
		}
		if s2, ok := strings.CutSuffix(s, "i"); ok {
			if b, a := try(s2 + "y"); b != "" {
				return b, a
			}
		}
	}
	switch w {
	case "sent", "sending":
		return "send", send
	case "paid", "payment", "payments", "transaction", "transactions", "money", "funds":
		return "pay", pay
	case "bought":
		return "buy", trade
	case "sold":
		return "sell", trade
	case "made":
		return "make", create
	case "wrote", "written":
		return "write", send
	}
	return "", noAction
}

// determiners come after a verb, not after the noun that is spelt like it.
var determiners = set(`the a an all any my your our his her their its this that these those me us it them him every each both
	some one another everyone everybody someone`)

// before are words that a noun comes after.
var before = set(`the a an my your our his her their its this that these those last latest recent new newest old next first
	every each any no some of by from 's via which what whose other same another in per unread`)

// wanted gives the kinds of deed that a text by somebody with authority asks for or speaks of. Words that are nouns as
// often count only where they stand as verbs.
func wanted(folded string) actions {
	var acts actions
	prev := ""
	for rest := folded; ; {
		w, after := nextWord(rest)
		if w == "" {
			return acts
		}
		if b, a := base(w); b != "" {
			next, _ := nextWord(after[:min(len(after), 40)])
			c := strings.TrimLeft(after, " ")
			quoted := len(after) > 1 && after[0] == ' ' && (c != "" && strings.IndexByte(`"'`, c[0]) >= 0)
			if !ambiguous[w] || !before[prev] && (determiners[next] || quoted || strings.Contains(c[:min(len(c), 40)], "@")) {
				acts |= a.set()
			}
		}
		prev, rest = w, after
	}
}

var carryOut = set(`do perform follow complete execute carry handle finish implement act obey tackle fulfil fulfill`)

var chores = set(`action actions task tasks instruction instructions todo todos to-do to-dos step steps directions chores`)

// delegates reports whether a text hands over to what stands somewhere else: "do the tasks in", "follow the
// instructions". What it lists itself ("perform the following tasks: ...") is no such thing, nor is "do I have tasks".
func delegates(folded string) bool {
	since, own := 99, false
	for w := range words(folded) {
		switch {
		case carryOut[w]:
			since, own = 0, false
			continue
		case since > 6:
			continue
		case since == 0 && pronouns[w]:
			since = 99
			continue
		case ownList[w]:
			own = true
		case chores[w] && !own:
			return true
		}
		since++
	}
	return false
}

var (
	pronouns = set(`i you we they he she it not`)
	ownList  = set(`following these this that below`)
)

// splitName gives the words of a tool's or an argument's name in lower case: at signs, and where a capital begins.
func splitName(name string) []string {
	var words []string
	start := -1
	flush := func(end int) {
		if start >= 0 && end > start {
			words = append(words, string(text.AppendFold(nil, name[start:end])))
		}
		start = -1
	}
	var last rune
	for i, r := range name {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			flush(i)
		case start < 0:
			start = i
		case unicode.IsUpper(r) && (unicode.IsLower(last) || startsWord(name[i:])):
			flush(i)
			start = i
		}
		last = r
		if len(words) >= 32 {
			return words
		}
	}
	flush(len(name))
	return words
}

// startsWord reports whether s begins with a capital and a small letter, so that a run of capitals ends before it.
func startsWord(s string) bool {
	_, n := utf8.DecodeRuneInString(s)
	r, _ := utf8.DecodeRuneInString(s[n:])
	return unicode.IsLower(r)
}

// nameNouns are verbs that are nouns in most names.
var nameNouns = set(`access archive backup bid book call charge claim clear comment compile complete contact control copy
	deposit draft drive email exchange file finish form fund import light link lock log mail make mark message
	monitor move note order patch place plan post press print process query rank rate record report request
	reserve reset return state store subject support switch text track trade tweet update-status use vote watch wire work`)

// inferClasses guesses from its name what a tool does. Known is false where the name says nothing.
func inferClasses(name string) (classes []policy.Class, known bool) {
	words := splitName(name)
	var found action
	for pass := range 3 { // verbs as such, then those that are nouns as often, then what is made of verbs
		for _, w := range words {
			b, a := base(w)
			if a != noAction && (pass == 2 || b == w && (pass == 1 || !nameNouns[w])) {
				found = a
				break
			}
		}
		if found != noAction {
			break
		}
	}
	has := func(list ...string) bool {
		for _, w := range words {
			for _, l := range list {
				if w == l {
					return true
				}
			}
		}
		return false
	}
	money := has("money", "payment", "transaction", "funds", "bill", "invoice", "ether", "bitcoin", "crypto", "certificate")
	secret := has("password", "credential", "credentials", "permission", "permissions", "access", "role", "policy", "key")
	web := has("web", "webpage", "page", "url", "website", "browser", "site", "link", "tab", "doc", "document", "file", "email", "article")
	switch found {
	case noAction:
		return []policy.Class{policy.Egress}, false
	case visit:
		if !web && has("open", "follow") {
			return []policy.Class{policy.Irreversible}, true
		}
		if has("web", "webpage", "url", "website", "browser", "link", "tab", "site") {
			return []policy.Class{policy.Read, policy.Egress}, true
		}
		return []policy.Class{policy.Read}, true
	case lookUp:
		if has("web", "webpage", "url", "website", "http", "https", "link") && !has("search", "history", "list") {
			return []policy.Class{policy.Read, policy.Egress}, true // whoever fetches tells the other side what
		}
		return []policy.Class{policy.Read}, true
	case operate:
		if has("go") && web {
			return []policy.Class{policy.Read}, true
		}
		return []policy.Class{policy.Irreversible}, true
	case pay, trade, remove, grant, revoke, cancel, execute:
		return []policy.Class{policy.Irreversible}, true
	case create, change, arrange, save:
		if money || secret {
			return []policy.Class{policy.Irreversible}, true
		}
		return []policy.Class{policy.Write}, true
	}
	if money {
		return []policy.Class{policy.Irreversible}, true
	}
	return []policy.Class{policy.Egress}, true
}

// authorityWords are what arguments are called that say to whom, where to or on what.
var authorityWords = set(`to cc bcc recipient recipients receiver email emails mail address addresses url urls uri link
	links href website webpage site host hostname domain endpoint webhook server ip account accounts iban payee beneficiary wallet user users
	username userid participant participants attendee attendees member members guest guests guest_ids contact channel
	channels group groups phone number destination target path file files filename filepath folder directory id ids repo
	repository branch password secret token key permission permissions role roles command cmd code script sql query_string
	device room location device_id payment`)

func authorityName(path string) bool {
	name := path[strings.LastIndexByte(path, '.')+1:]
	if i := strings.IndexByte(name, '['); i >= 0 {
		name = name[:i]
	}
	words := splitName(name)
	for _, w := range words {
		if authorityWords[w] {
			return true
		}
	}
	return false
}
