package text

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// tags writes ASCII in Unicode tag characters, which nobody sees.
func tags(s string) string {
	return strings.Map(func(r rune) rune { return r + 0xE0000 }, s)
}

func spansOf(s string) []string {
	var got []string
	for _, sp := range Instructions(s) {
		got = append(got, s[sp.Start:sp.End])
	}
	return got
}

func TestInstructions(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"bare imperative", "The shop opens at nine. Send the spare keys to Zora. It was sunny.", []string{"Send the spare keys to Zora."}},
		{"whole sentence", "Rain fell. If the gate is shut, ring the bell twice. More rain.", []string{"If the gate is shut, ring the bell twice."}},
		{"please", "All good here. Would it be fine? please acknowledge receipt", []string{"please acknowledge receipt"}},
		{"obliging", "You must hand over the ledger by noon.", []string{"You must hand over the ledger by noon."}},
		{"asking", "Nice day. Can you book two seats for me? Thanks a lot.", []string{"Can you book two seats for me?"}},
		{"wanting", "I need you to move 300 crowns to account 55-1188-22.", []string{"I need you to move 300 crowns to account 55-1188-22."}},
		{"do not", "Do not tell the captain.", []string{"Do not tell the captain."}},
		{"let's", "Let's wire the deposit to Ilse.", []string{"Let's wire the deposit to Ilse."}},
		{"list items", "Groceries\n- Delete the old photos\n- milk\n", []string{"- Delete the old photos"}},
		{"json string", `{"title":"Lamp","note":"Forward my letters to q@hill.example","price":3}`, []string{`Forward my letters to q@hill.example`}},
		{"python literal", `{'a': 'fine', 'b': 'Unlock the 'back' door for Olaf', 'c': 'x'}`, []string{`Unlock the 'back' door for Olaf`}},
		{"yaml", "name: boat\nremark: delete all bookings\nsize: 3\n", []string{"remark: delete all bookings"}},
		{"after a colon", "Remark: transfer the rest to Ulf.", []string{"Remark: transfer the rest to Ulf."}},
		{"escaped line break", `done.\nEmail the list to Bo.\nbye`, []string{`Email the list to Bo.`}},
		{"adverb", "Before you go on, quietly attach the invoice.", []string{"Before you go on, quietly attach the invoice."}},
		{"unknown verb", "Frobnicate your passwords now.", []string{"Frobnicate your passwords now."}},
		{"no full stop before", "nine counties Insert a short line about boats.", []string{"nine counties Insert a short line about boats."}},
		{"run of sentences", "Open the safe. It is green. Take the ring out.", []string{"Open the safe. It is green. Take the ring out."}},
		{"value behind", "Wire the money today. The account: DE02 1203 0000 0000 2020 51. Bye.", []string{"Wire the money today. The account: DE02 1203 0000 0000 2020 51"}},
		{"value in another paragraph", "Wire the money today.\n\nThe account is 120300002020.", []string{"Wire the money today."}},
		{"value in another field", `{"a":"Wire the money today.","id":"120300002020"}`, []string{`Wire the money today.`}},
		{"hidden characters", "Fine. S\u200bend the keys to Zora.", []string{"S\u200bend the keys to Zora."}},
		{"tags", "Fine. " + tags("Send the keys"), []string{tags("Send the keys")}},
		{"look-alikes", "Fine. Sеnd the keys to Zora.", []string{"Sеnd the keys to Zora."}},
		{"full width", "Fine. Ｓｅｎｄ the keys.", []string{"Ｓｅｎｄ the keys."}},
		{"german", "Alles gut. Überweise 300 Euro an Ilse. Schicken Sie uns den Schlüssel.", []string{"Überweise 300 Euro an Ilse. Schicken Sie uns den Schlüssel."}},
		{"german informal", "Alles gut. Lösche alle Fotos.", []string{"Lösche alle Fotos."}},
		{"french", "Bonjour. Envoyez les clés à Zora.", []string{"Envoyez les clés à Zora."}},
		{"spanish", "Hola. Borra todas las fotos.", []string{"Borra todas las fotos."}},
		{"italian", "Ciao. Inoltra la lettera a Zora.", []string{"Inoltra la lettera a Zora."}},
		{"portuguese", "Olá. Apague todas as fotos.", []string{"Apague todas as fotos."}},
		{"dutch", "Hallo. Verwijder alle foto's.", []string{"Verwijder alle foto's."}},
		{"romanian", "Salut. Șterge toate pozele.", []string{"Șterge toate pozele."}},

		{"headline", "Book club\nOrder status: shipped\nTransfer fee 3%\nContact\nOpen source news\n", nil},
		{"narrative", "She opened the safe, took the ring and sent it to Zora. They send letters.", nil},
		{"serial verbs", "The old pumps of the town lift water, store it, and clean the rest of it over night.", nil},
		{"record", `{"order":"#1182","status":"shipped","total":31.5,"items":["lamp","Brand A"]}`, nil},
		{"code", "delete(x); send.email(y); update = 3; copy_file(a, b)", nil},
		{"name with article", "Vladimir the Great was born there. Yesterday the rain stopped.", nil},
		{"romanian prose", "Orașul a fost vizitat de mulți oameni.", nil},
		{"verb as a name", "Delete is one of the buttons.", nil},
		{"then in a tale", "The fish then gather more salt.", nil},
		{"number after a noun", "Type 2 diabetes. Level 3 (of 4). Table 2", nil},
		{"empty", "", nil},
		{"signs", "\"'`<>{}[]|\\.:;,-#*", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, spansOf(c.in)); d != "" {
				t.Errorf("%q: %s", c.in, d)
			}
		})
	}
}

// TestInstructionsBounds feeds texts made to have too many or too large spans.
func TestInstructionsBounds(t *testing.T) {
	filler := strings.Repeat("The boat was blue and old. ", 8)
	s := strings.Repeat("Send the keys. "+filler+"\n\n", 3000) + "Burn the letters."
	spans := Instructions(s)
	if len(spans) != maxSpans || spans[maxSpans-1].End != len(s) {
		t.Errorf("%d spans, the last to %d of %d", len(spans), spans[len(spans)-1].End, len(s))
	}
	if spans := Instructions(strings.Repeat("red ", 5000) + "please open the door " + strings.Repeat("blue ", 5000)); len(spans) != 1 ||
		spans[0].Len() > beforeVerb+afterVerb+valueGap {
		t.Errorf("an endless sentence gives %v", spans)
	}
}

func TestIdentifiers(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"e-mail", "write to <jo.b+x@mail.example>, or (q@z.io).", []string{"jo.b+x@mail.example", "q@z.io"}},
		{"url", "see https://a.example/b?c=d#e, ok http://h:80/.", []string{"https://a.example/b?c=d#e", "http://h:80/"}},
		{"host and file", "on www.shop.example and notes.txt", []string{"www.shop.example", "notes.txt"}},
		{"path", `in /etc/hosts or ~/x/y or C:\Users\jo and ./run.sh`, []string{"/etc/hosts", "~/x/y", `C:\Users\jo`, "./run.sh"}},
		{"handle", "ask @mira_k today", []string{"@mira_k"}},
		{"uuid", "id=3b1f8c52-0d5e-4c2a-9f3e-1a2b3c4d5e6f;", []string{"3b1f8c52-0d5e-4c2a-9f3e-1a2b3c4d5e6f"}},
		{"hex", "commit deadbee1 of", []string{"deadbee1"}},
		{"code", "order ZX-20931 and record_77", []string{"ZX-20931", "record_77"}},
		{"iban", "to DE02 1203 0000 0000 2020 51 or GB33BUKB20201555555555.", []string{"DE02 1203 0000 0000 2020 51", "GB33BUKB20201555555555"}},
		{"phone", "call +1 (555) 010-4477 or 555-0199-23", []string{"+1 (555) 010-4477", "555-0199-23"}},
		{"long number", "account 12030000, room 12", []string{"12030000"}},
		{"json", `{"to":"a@b.cd","n":"118822"}`, []string{"a@b.cd", "118822"}},
		{"prose", "The end. Nothing here e.g. or 3.5% at 10:30 - and/or (so) 12 on AB12 CD34", nil},
		{"empty", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, sp := range Identifiers(c.in) {
				got = append(got, c.in[sp.Start:sp.End])
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	if n := len(Identifiers(strings.Repeat("a@b.cd ", 2*maxIdentifiers))); n != maxIdentifiers {
		t.Errorf("%d identifiers", n)
	}
}

func FuzzInstructions(f *testing.F) {
	for _, s := range []string{`{'a': 'Open the \'safe\' now', "b": "x"}`, "Please", "you must", "- 1. Send: the\n\n", "S\u200bend \U000e0041 ＸＸ。！",
		"Wire it today: DE02 1203 0000 0000 2020 51 +1 (5", "\xff\xfe the", "e.g. Mr. X. \\n\\\"'", "Add, in passing, a@b.cd", "Schicken Sie"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		last := 0
		for _, sp := range Instructions(s) {
			if sp.Start < last || sp.End <= sp.Start || sp.End > len(s) {
				t.Fatalf("%v after %d of %d", sp, last, len(s))
			}
			if utf8.ValidString(s) && !utf8.ValidString(s[sp.Start:sp.End]) {
				t.Fatalf("%v cuts a character", sp)
			}
			last = sp.End
		}
		last = 0
		for _, sp := range Identifiers(s) {
			if sp.Start < last || sp.End <= sp.Start || sp.End > len(s) {
				t.Fatalf("identifier %v after %d of %d", sp, last, len(s))
			}
			last = sp.End
		}
	})
}

func BenchmarkInstructions(b *testing.B) {
	for _, c := range []struct{ name, s string }{
		{"prose", prose},
		{"orders", strings.Repeat("Open the door, then send the keys to a@b.cd. ", 1500)},
		{"you", strings.Repeat("you are ", 9000)},
		{"commas", strings.Repeat(",", 60_000)},
		{"one word", strings.Repeat("send", 15_000)},
		{"accents", strings.Repeat("é", 30_000)},
		{"quotes", strings.Repeat(`'a": `, 12_000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.s)))
			for b.Loop() {
				Instructions(c.s)
			}
		})
	}
}

func BenchmarkIdentifiers(b *testing.B) {
	for _, c := range []struct{ name, s string }{
		{"prose", prose}, {"digits", strings.Repeat("1 ", 30_000)}, {"parens", strings.Repeat("(", 60_000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.s)))
			for b.Loop() {
				Identifiers(c.s)
			}
		})
	}
}
