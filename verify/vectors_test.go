package verify

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead"
	"golang.org/x/mod/sumdb/tlog"
)

var update = flag.Bool("update", false, "write the vectors in testdata/format anew")

const vectorDir = "testdata/format"

// The parts that envelope vectors are made of.
const (
	vID     = `"id":"abcdefghijklm-1"`
	vTenant = `"tenant":"default"`
	vKind   = `"kind":"call.intent/1"`
	vTime   = `"time":"2026-11-21T12:00:00.000000Z"`
	vNonce  = `"nonce":"AAECAwQFBgcICQoLDA0ODw"`
	vSchema = `"schema":"gen-ai/1.42"`
	vDigest = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
)

// env is an envelope with more members after the required ones.
func env(more ...string) string {
	return "{" + strings.Join(append([]string{`"v":1`, vID, vTenant, vKind, vTime, vNonce, vSchema}, more...), ",") + "}"
}

// with replaces part of an envelope.
func with(old, new string, more ...string) string {
	e := env(more...)
	if strings.Count(e, old) != 1 {
		panic(old + " does not stand once in " + e)
	}
	return strings.Replace(e, old, new, 1)
}

func attrs(s string) string { return env(`"attrs":{` + s + `}`) }

func content(s string) string { return env(`"content":[` + s + `]`) }

func contentOf(blob, scope, size string) string {
	return `{"name":"request","blob":` + blob + `,"scope":` + scope + `,"bytes":` + size + `,"address":"` + vDigest + `","sealed":"` + vDigest + `"}`
}

func many(n int, each func(i int) string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = each(i)
	}
	return strings.Join(list, ",")
}

const vActor = `"actor":{"app":{"v":"support","a":"verified","m":"virtual-key"},"user":{"v":"u:1","a":"verified","m":"oidc","i":"https://issuer.example"},"agent":{"a":"absent"},"chain":["a","b"]}`

// accepted envelopes, by file name.
var accepted = map[string]string{
	"smallest":            env(),
	"everything":          env(vActor, `"links":[{"rel":"continues","to":"abcdefghijklm-9223372036854775807","a":"derived"},{"rel":"new_one","to":"2222222222222-1","a":"ambiguous"}]`, `"attrs":{"s":"text","n":42,"t":true,"f":false,"l":["a","b"]}`, `"content":[`+contentOf("1", "2", "3")+`]`),
	"strings":             attrs(`"":"","é":"日本語 😀","\"\\":"\b\t\n\f\r\u0000\u001f","del":"` + "\x7f" + `","line":"` + "\u2028" + `","slash":"a/b","names":["","é"],"none":[]`),
	"case-differs":        attrs(`"a":1,"A":2`),
	"composed-differs":    attrs(`"é":1,"` + "e\u0301" + `":2`),
	"numbers":             attrs(`"max":9007199254740991,"min":-9007199254740991,"zero":0,"one":-1`),
	"attributes-64":       attrs(many(64, func(i int) string { return fmt.Sprintf(`"a%d":%d`, i, i) })),
	"tenant-longest":      with(`"default"`, `"`+strings.Repeat("a", 30)+`-0"`),
	"kind-longest":        with("call.intent/1", "a_b.c_.d/9999"),
	"schema-longest":      with("gen-ai/1.42", strings.Repeat("Z9._/-", 10)+"abcd"),
	"time-leap-day":       with("2026-11-21", "2028-02-29"),
	"time-last":           with("2026-11-21T12:00:00.000000", "9999-12-31T23:59:59.999999"),
	"time-first":          with("2026-11-21T12", "0001-01-01T00"),
	"nonce-marks":         with("AAECAwQFBgcICQoLDA0ODw", "__-_AwQFBgcICQoLDA0ODw"),
	"content-no-bytes":    content(contentOf("9007199254740991", "1", "0")),
	"unknown":             env(`"attrs":{"a":1}`, `"later":{"deep":[[[[1,-2,"x",null,true]]]],"empty":{},"none":[]}`, `"x9_":null`),
	"unknown-no-content":  env(`"zzz":"é\n"`),
	"unknown-nesting-6":   env(`"z":[[[[[]]]]]`),
	"unknown-members-64":  env(`"z":{` + many(64, func(i int) string { return fmt.Sprintf(`"%d":0`, i) }) + `}`),
	"unknown-any-inside":  env(`"z":{"Content":1,"content":2,"":3}`),
	"length-4096":         attrs(`"a":"` + strings.Repeat("x", MaxEnvelope-len(attrs(`"a":""`))) + `"`),
	"actor-only-chain":    env(`"actor":{"chain":[""]}`),
	"actor-only-agent":    env(`"actor":{"agent":{"v":"x","a":"declared"}}`),
	"links-to-itself":     env(`"links":[{"rel":"refers","to":"abcdefghijklm-1","a":"declared"}]`),
	"name-with-any-marks": attrs(`"a b.c/d:e":1`),
}

// rejected envelopes, by rule and name.
var rejected = map[string]string{
	"E1-too-long":          attrs(`"a":"` + strings.Repeat("x", MaxEnvelope+1-len(attrs(`"a":""`))) + `"`),
	"E1-invalid-utf-8":     attrs("\"a\":\"\xff\""),
	"E1-overlong-utf-8":    attrs("\"a\":\"\xc0\xaf\""),
	"E1-surrogate-utf-8":   attrs("\"a\":\"\xed\xa0\x80\""),
	"E2-empty":             "",
	"E2-array":             "[" + env() + "]",
	"E2-byte-order-mark":   "\ufeff" + env(),
	"E2-cut-off":           env()[:len(env())-1],
	"E2-cut-in-string":     env(`"z":"abc`)[:len(env())+5],
	"E2-line-feed-after":   env() + "\n",
	"E2-second-object":     env() + env(),
	"E2-nul-after":         env() + "\x00",
	"E2-tab-inside":        attrs("\"a\":\t1"),
	"E2-raw-control":       attrs("\"a\":\"\x01\""),
	"E2-raw-line-feed":     attrs("\"a\":\"x\ny\""),
	"E2-comma-at-the-end":  attrs(`"a":1,`),
	"E2-comma-twice":       attrs(`"a":1,,"b":2`),
	"E2-unquoted":          attrs(`a:1`),
	"E2-single-quotes":     attrs(`'a':1`),
	"E2-nan":               env(`"z":NaN`),
	"E2-true-spelling":     env(`"z":True`),
	"E2-plus":              env(`"z":+1`),
	"E2-space":             env(`"z": 1`),
	"E2-space-inside":      env(`"z":[1, 2]`),
	"E3-attribute-twice":   attrs(`"model":"cheap","model":"dear"`),
	"E3-nested-twice":      env(`"z":[{"a":{"b":1,"b":2}}]`),
	"E3-unknown-twice":     env(`"z":1`, `"z":2`),
	"E3-attributes-65":     attrs(many(65, func(i int) string { return fmt.Sprintf(`"a%d":%d`, i, i) })),
	"E3-members-65":        env(`"z":{` + many(65, func(i int) string { return fmt.Sprintf(`"%d":0`, i) }) + `}`),
	"E3-nesting-7":         env(`"z":[[[[[[]]]]]]`),
	"E3-nesting-1000":      env(`"z":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)),
	"E4-no-members":        "{}",
	"E4-no-version":        strings.Replace(env(), `"v":1,`, "", 1),
	"E4-no-nonce":          strings.Replace(env(), vNonce+",", "", 1),
	"E4-no-schema":         strings.Replace(env(), ","+vSchema, "", 1),
	"E4-order":             "{" + strings.Join([]string{`"v":1`, vTenant, vID, vKind, vTime, vNonce, vSchema}, ",") + "}",
	"E4-order-late":        env(`"attrs":{"a":1}`, `"links":[{"rel":"refers","to":"abcdefghijklm-1","a":"declared"}]`),
	"E4-twice":             env(`"attrs":{"a":1}`, `"attrs":{"a":2}`),
	"E4-twice-after":       env(`"z":1`, vKind),
	"E4-escaped-name":      with(`"tenant"`, `"\u0074enant"`),
	"E4-capital-name":      env(`"Attrs":{"a":1}`),
	"E4-capital-name-late": env(`"attrs":{"a":1}`, `"ATTRS":{"a":2}`),
	"E4-long-name":         env(`"` + strings.Repeat("a", 33) + `":1`),
	"E4-empty-name":        env(`"":1`),
	"E4-folding-name":      env(`"lin` + "\u212a" + `s":[]`), // the Kelvin sign, which folds to k
	"E4-null-attribute":    attrs(`"a":null`),
	"E4-object-attribute":  attrs(`"a":{}`),
	"E4-empty-actor":       env(`"actor":{}`),
	"E4-empty-chain":       env(`"actor":{"chain":[]}`),
	"E4-empty-links":       env(`"links":[]`),
	"E4-empty-attributes":  env(`"attrs":{}`),
	"E4-empty-content":     env(`"content":[]`),
	"E4-empty-value":       env(`"actor":{"app":{"v":"","a":"absent"}}`),
	"E4-empty-relation":    env(`"links":[{"rel":"","to":"abcdefghijklm-1","a":"declared"}]`),
	"E4-facet-assurance":   env(`"actor":{"app":{"v":"x"}}`),
	"E4-facet-unknown":     env(`"actor":{"app":{"v":"x","a":"declared","z":1}}`),
	"E4-facet-order":       env(`"actor":{"app":{"a":"declared","v":"x"}}`),
	"E4-facet-twice":       env(`"actor":{"app":{"v":"x","v":"y","a":"declared"}}`),
	"E4-actor-order":       env(`"actor":{"user":{"a":"absent"},"app":{"a":"absent"}}`),
	"E4-actor-unknown":     env(`"actor":{"app":{"a":"absent"},"role":{"a":"absent"}}`),
	"E4-assurance":         env(`"actor":{"app":{"v":"x","a":"Verified"}}`),
	"E4-link-member":       env(`"links":[{"rel":"refers","to":"abcdefghijklm-1","a":"declared","z":1}]`),
	"E4-link-assurance":    env(`"links":[{"rel":"refers","to":"abcdefghijklm-1","a":"sure"}]`),
	"E4-content-member":    content(strings.Replace(contentOf("1", "1", "1"), `"}`, `","z":1}`, 1)),
	"E4-content-digest":    content(strings.Replace(contentOf("1", "1", "1"), vDigest, vDigest[1:], 1)),
	"E4-digest-stray-bits": content(strings.Replace(contentOf("1", "1", "1"), "Hh8", "Hh9", 1)),
	"E5-version-2":         with(`"v":1`, `"v":2`),
	"E5-version-text":      with(`"v":1`, `"v":"1"`),
	"E5-version-fraction":  with(`"v":1`, `"v":1.0`),
	"E6-zero":              with("abcdefghijklm-1", "abcdefghijklm-0"),
	"E6-leading-zero":      with("abcdefghijklm-1", "abcdefghijklm-01"),
	"E6-too-large":         with("abcdefghijklm-1", "abcdefghijklm-9223372036854775808"),
	"E6-sign":              with("abcdefghijklm-1", "abcdefghijklm-+1"),
	"E6-short-boot":        with("abcdefghijklm-1", "abcdefghijkl-1"),
	"E6-capital-boot":      with("abcdefghijklm-1", "ABCDEFGHIJKLM-1"),
	"E6-no-number":         with("abcdefghijklm-1", "abcdefghijklm-"),
	"E6-digits":            with("abcdefghijklm-1", "abcdefghijklm-١"),
	"E6-link":              env(`"links":[{"rel":"refers","to":"nobody","a":"declared"}]`),
	"E7-empty-tenant":      with(`"default"`, `""`),
	"E7-tenant-dash":       with(`"default"`, `"-a"`),
	"E7-tenant-long":       with(`"default"`, `"`+strings.Repeat("a", 33)+`"`),
	"E7-tenant-capital":    with(`"default"`, `"Default"`),
	"E7-tenant-line-feed":  with(`"default"`, `"default\n"`),
	"E7-kind-version":      with("call.intent/1", "call.intent"),
	"E7-kind-version-0":    with("call.intent/1", "call.intent/01"),
	"E7-kind-version-long": with("call.intent/1", "call.intent/10000"),
	"E7-kind-dots":         with("call.intent/1", "call..intent/1"),
	"E7-kind-dot-last":     with("call.intent/1", "call./1"),
	"E7-kind-line-feed":    with("call.intent/1", `call.intent/1\n`),
	"E8-comma":             with("12:00:00.000000Z", "12:00:00,000000Z"),
	"E8-milliseconds":      with("12:00:00.000000Z", "12:00:00.000Z"),
	"E8-offset":            with("12:00:00.000000Z", "12:00:00.00+00:00"),
	"E8-small-z":           with("12:00:00.000000Z", "12:00:00.000000z"),
	"E8-space":             with("2026-11-21T", "2026-11-21 "),
	"E8-no-date":           with("2026-11-21", "2026-02-29"),
	"E8-month-13":          with("2026-11-21", "2026-13-01"),
	"E8-year-0":            with("2026-11-21", "0000-11-21"),
	"E8-hour-24":           with("T12:", "T24:"),
	"E8-leap-second":       with("12:00:00.", "23:59:60."),
	"E9-short":             with("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0O"),
	"E9-long":              with("AAECAwQFBgcICQoLDA0ODw", strings.Repeat("A", 200)),
	"E9-padding":           with("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0ODw=="),
	"E9-stray-bits":        with("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0ODx"),
	"E9-not-url":           with("AAECAwQFBgcICQoLDA0ODw", "++ECAwQFBgcICQoLDA0ODw"),
	"E9-line-feed":         with("AAECAwQFBgcICQoLDA0ODw", `AAECAwQFBgcICQoLDA0O\n`),
	"E10-empty":            with("gen-ai/1.42", ""),
	"E10-long":             with("gen-ai/1.42", strings.Repeat("a", 65)),
	"E10-space":            with("gen-ai/1.42", "gen ai"),
	"E11-fraction":         attrs(`"a":1.5`),
	"E11-whole-fraction":   attrs(`"a":1.0`),
	"E11-exponent":         attrs(`"a":1e3`),
	"E11-too-large":        attrs(`"a":9007199254740992`),
	"E11-too-small":        attrs(`"a":-9007199254740992`),
	"E11-huge":             attrs(`"a":` + strings.Repeat("9", 400)),
	"E11-leading-zero":     attrs(`"a":01`),
	"E11-minus-zero":       attrs(`"a":-0`),
	"E11-minus":            attrs(`"a":-`),
	"E11-unknown":          env(`"z":[0.1]`),
	"E11-blob-0":           content(contentOf("0", "1", "1")),
	"E11-scope-0":          content(contentOf("1", "0", "1")),
	"E11-bytes-negative":   content(contentOf("1", "1", "-1")),
	"E12-letter":           attrs(`"\u0061":1`),
	"E12-twice-by-escape":  attrs(`"a":1,"\u0061":2`),
	"E12-slash":            attrs(`"a":"\/"`),
	"E12-line-feed":        attrs(`"a":"\u000a"`),
	"E12-capital-hex":      attrs(`"a":"\u001F"`),
	"E12-above-control":    attrs(`"a":"\u0020"`),
	"E12-lone-surrogate":   attrs(`"a":"\ud800"`),
	"E12-surrogate-pair":   attrs(`"a":"\ud83d\ude00"`),
	"E12-unknown-escape":   attrs(`"a":"\x41"`),
	"E12-short-escape":     attrs(`"a":"\u1"`),
	"E12-id":               with("abcdefghijklm-1", `\u0061bcdefghijklm-1`),
	"E12-unknown-member":   env(`"z":{"a":1,"\u0061":2}`),
}

// golden compares a vector file with what it must hold, or writes it.
func golden(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join(vectorDir, name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what this version makes (%v): the format must never change", path, err)
	}
}

// files gives the names of the vectors in a folder, which must be exactly those that are wanted.
func files(t *testing.T, dir string, want int) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(vectorDir, dir))
	if err != nil || len(list) != want {
		t.Errorf("%s holds %d vectors (%v), %d are known here", dir, len(list), err, want)
	}
}

func TestEnvelopeVectors(t *testing.T) {
	for name, text := range accepted {
		golden(t, "accept/"+name+".json", []byte(text))
		e, err := ParseEnvelope([]byte(text))
		if err != nil {
			t.Errorf("%s is refused: %v", name, err)
			continue
		}
		var fast reader
		if err := fast.read([]byte(text)); err != nil || fast.env.ID != e.ID {
			t.Errorf("%s: the fast reader says %v", name, err)
		}
		again, err := AppendEnvelope(nil, &e.Fact, e.Schema, e.Nonce)
		if strings.HasPrefix(name, "unknown") {
			continue
		}
		if err != nil || string(again) != text {
			t.Errorf("%s is written as\n%s (%v)\nand was\n%s", name, again, err, text)
		}
	}
	for name, text := range rejected {
		golden(t, "reject/"+name+".json", []byte(text))
		want, _, _ := strings.Cut(name, "-")
		for _, full := range []bool{true, false} {
			p := reader{full: full}
			err := p.read([]byte(text))
			var rule *RuleError
			if !errors.As(err, &rule) {
				t.Errorf("%s is accepted", name)
			} else if rule.Rule != want {
				t.Errorf("%s is refused for %v", name, err)
			}
		}
	}
	files(t, "accept", len(accepted))
	files(t, "reject", len(rejected))
}

// TestUnknownMembersAreKept shows that what a later version adds reaches no known member.
func TestUnknownMembersAreKept(t *testing.T) {
	e, err := ParseEnvelope([]byte(env(`"attrs":{"a":1}`, `"later":{"attrs":{"a":2}}`)))
	if err != nil || e.Int("a") != 1 || len(e.Attrs) != 1 {
		t.Errorf("%+v %v", e, err)
	}
}

// TestProofVectors makes the vectors of proofs and checkpoints, over a log of 300 events that stands in log/ in the
// tlog-tiles layout.
func TestProofVectors(t *testing.T) {
	signers, keyText := testSigners(t)
	keys, err := ParseKeys(keyText)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "keys", []byte(keyText))
	edOnly, err := ParseKeys(strings.SplitAfter(keyText, "\n")[0])
	if err != nil {
		t.Fatal(err)
	}
	m, _ := newMemLog(t, 300)
	tiles := tilesOf(m)
	cp := string(sign(t, m.size, m.root, signers...))
	old := string(sign(t, 100, rootAt(t, tiles, 100), signers...))
	for name, b := range layout(m) {
		golden(t, "log/"+name, b)
	}
	golden(t, "log/checkpoint", []byte(cp))

	proof := func(seq int64, cp string, size int64) Proof {
		h, err := tlog.ProveRecord(size, seq, tiles)
		if err != nil {
			t.Fatal(err)
		}
		return Proof{Envelope: m.events[seq], Index: seq, Hashes: h, Checkpoint: []byte(cp)}
	}
	good := proof(17, cp, 300)
	goodText := string(good.Format())
	alter := func(edit func(p *Proof)) string {
		p := good
		p.Hashes = append(tlog.RecordProof(nil), p.Hashes...)
		edit(&p)
		return string(p.Format())
	}
	one := string(sign(t, 1, LeafHash(m.events[0]), signers...))
	proofs := map[string]string{
		"accept/middle":     goodText,
		"accept/first":      string(proof(0, cp, 300).Format()),
		"accept/last":       string(proof(299, cp, 300).Format()),
		"accept/older":      string(proof(99, old, 100).Format()),
		"accept/only-event": string(proof(0, one, 1).Format()),

		"reject/envelope":         alter(func(p *Proof) { p.Envelope = m.events[18] }),
		"reject/envelope-rule":    alter(func(p *Proof) { p.Envelope = append([]byte(" "), p.Envelope...) }),
		"reject/index":            alter(func(p *Proof) { p.Index = 16 }),
		"reject/index-beyond":     alter(func(p *Proof) { p.Index = 300 }),
		"reject/index-zero":       strings.Replace(goodText, "\nindex 17\n", "\nindex 017\n", 1),
		"reject/index-negative":   strings.Replace(goodText, "\nindex 17\n", "\nindex -1\n", 1),
		"reject/index-missing":    strings.Replace(goodText, "\nindex 17\n", "\n", 1),
		"reject/hash":             alter(func(p *Proof) { p.Hashes[3][0] ^= 1 }),
		"reject/hashes-short":     alter(func(p *Proof) { p.Hashes = p.Hashes[1:] }),
		"reject/hashes-long":      alter(func(p *Proof) { p.Hashes = append(p.Hashes, tlog.Hash{}) }),
		"reject/hashes-64":        alter(func(p *Proof) { p.Hashes = make(tlog.RecordProof, 64) }),
		"reject/carriage-returns": strings.Replace(goodText, "\nindex", "\r\nindex", 1),
		"reject/extra-missing":    strings.Replace(goodText, "\nextra ", "\nindex 17\nextra ", 1),
		"reject/header":           strings.Replace(goodText, "@v1", "@v2", 1),
		"reject/checkpoint":       alter(func(p *Proof) { p.Checkpoint = []byte(old) }),
		"reject/signature":        strings.Replace(goodText, "\n300\n", "\n301\n", 1),
		"reject/cut-off":          goodText[:200],
	}
	edLine := strings.SplitAfter(cp, "\n")[4]
	pqLine := strings.SplitAfter(cp, "\n")[5]
	body := Checkpoint{Origin: testOrigin, Size: m.size, Root: m.root}.Text() + "\n"
	stray := strings.Replace(edLine, "=\n", "", 1)
	stray = stray[:len(stray)-1] + string(stray[len(stray)-1]+1) + "=\n"
	resign := func(text string) string { return signText(t, text, signers...) }
	root64 := base64.StdEncoding.EncodeToString(m.root[:])
	empty := (&Frontier{}).Root()
	checkpoints := map[string]string{
		"accept/whole":   cp,
		"accept/order":   body + pqLine + edLine,
		"accept/witness": cp + "— witness.example/w AAAAAAAAAAAAAAAA\n",
		"accept/empty":   string(sign(t, 0, empty, signers...)),
		"accept/first":   body + edLine + edLine[:len(edLine)-10] + "AAAAAAAA=\n" + pqLine,

		"reject/no-ed25519":     body + pqLine,
		"reject/no-ml-dsa":      body + edLine,
		"reject/no-signature":   body,
		"reject/unsigned":       strings.TrimSuffix(body, "\n"),
		"reject/size":           strings.Replace(cp, "\n300\n", "\n299\n", 1),
		"reject/root":           strings.Replace(cp, root64[:4], "AAAA", 1),
		"reject/stray-bits":     body + stray + pqLine,
		"reject/extension":      resign(body[:len(body)-1] + "extension\n"),
		"reject/origin":         resign(strings.Replace(body[:len(body)-1], testOrigin, testOrigin+"2", 1)),
		"reject/size-zero":      resign(strings.Replace(body[:len(body)-1], "\n300\n", "\n0300\n", 1)),
		"reject/size-negative":  resign(strings.Replace(body[:len(body)-1], "\n300\n", "\n-300\n", 1)),
		"reject/size-large":     resign(strings.Replace(body[:len(body)-1], "\n300\n", "\n9223372036854775808\n", 1)),
		"reject/root-short":     resign(strings.Replace(body[:len(body)-1], root64, "AAAA", 1)),
		"reject/root-stray":     resign(strings.Replace(body[:len(body)-1], root64, root64[:42]+string(root64[42]+1)+"=", 1)),
		"reject/empty-tree":     resign(Checkpoint{Origin: testOrigin, Root: m.root}.Text()),
		"reject/carriage":       strings.ReplaceAll(cp, "\n", "\r\n"),
		"reject/ml-dsa-altered": strings.Replace(cp, pqLine, pqLine[:200]+"AAAA"+pqLine[204:], 1),
	}
	n := map[string]int{}
	for name, text := range proofs {
		dir, _, _ := strings.Cut(name, "/")
		n["proofs/"+dir]++
		golden(t, "proofs/"+name+".tlog-proof", []byte(text))
		p, err := ParseProof([]byte(text))
		if err == nil {
			_, _, err = p.Check(keys)
		}
		if (err == nil) != (dir == "accept") {
			t.Errorf("proof %s: %v", name, err)
		}
		if err == nil && string(p.Format()) != text {
			t.Errorf("proof %s is written in another way", name)
		}
	}
	for name, text := range checkpoints {
		dir, _, _ := strings.Cut(name, "/")
		n["checkpoints/"+dir]++
		golden(t, "checkpoints/"+name, []byte(text))
		if c, err := keys.OpenCheckpoint([]byte(text)); (err == nil) != (dir == "accept") {
			t.Errorf("checkpoint %s: %v", name, err)
		} else if err == nil && len(c.Signers) != 2 {
			t.Errorf("checkpoint %s is signed by %v", name, c.Signers)
		}
		// A reader without the ML-DSA key refuses them for what is wrong with them, not for want of a line.
		if _, err := edOnly.OpenCheckpoint([]byte(text)); (err == nil) != (dir == "accept" || strings.Contains(name, "ml-dsa")) {
			t.Errorf("checkpoint %s, without the ML-DSA key: %v", name, err)
		}
	}
	for dir, want := range n {
		files(t, dir, want)
	}
}

// TestKeys asks of verifier keys what a careless reader would let pass.
func TestKeys(t *testing.T) {
	_, text := testSigners(t)
	ed, pq, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\n")
	for name, tt := range map[string]struct {
		text string
		good bool
	}{
		"both": {text, true}, "comment": {"# a log\n\n" + text, true}, "without ML-DSA": {ed, true}, "spaces around": {"  " + ed + " \r\n", true},
		"nothing": {"", false}, "ML-DSA alone": {pq, false}, "twice": {ed + "\n" + ed, false}, "line break inside": {ed[:60] + "\r" + ed[60:], false},
		"wrong hash": {strings.Replace(ed, "+", "+0", 1)[:len(ed)], false}, "cut off": {ed[:len(ed)-4], false},
		"another log": {text + strings.Replace(ed, testOrigin, "other.example", 1), false},
	} {
		if _, err := ParseKeys(tt.text); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConsistency(t *testing.T) {
	m, _ := newMemLog(t, 300)
	tiles := tilesOf(m)
	at := func(n int64) Checkpoint { return Checkpoint{Origin: "a", Size: n, Root: rootAt(t, tiles, n)} }
	older, newer := at(100), at(300)
	proof, err := tlog.ProveTree(300, 100, tiles)
	if err != nil {
		t.Fatal(err)
	}
	forked, zero := older, Checkpoint{Origin: "a", Root: (&Frontier{}).Root()}
	forked.Root[0] ^= 1
	for name, tt := range map[string]struct {
		older, newer Checkpoint
		proof        tlog.TreeProof
		good         bool
	}{
		"prefix": {older, newer, proof, true}, "same": {newer, newer, nil, true}, "from nothing": {zero, newer, nil, true},
		"forked": {forked, newer, proof, false}, "shrunk": {newer, older, proof, false}, "no proof": {older, newer, nil, false},
		"other log":             {Checkpoint{Origin: "b", Size: 100, Root: older.Root}, newer, proof, false},
		"same size, other root": {Checkpoint{Origin: "a", Size: 300, Root: older.Root}, newer, nil, false},
	} {
		if err := CheckConsistency(tt.older, tt.newer, tt.proof); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingUnreadableIsWritten(t *testing.T) {
	for name, f := range map[string]func(f *fairlead.Fact){
		"no kind":      func(f *fairlead.Fact) { f.Kind = "" },
		"no assurance": func(f *fairlead.Fact) { f.Actor.App = fairlead.Facet{Value: "x"} },
		"twice":        func(f *fairlead.Fact) { f.Attrs = append(f.Attrs, f.Attrs[0]) },
		"float":        func(f *fairlead.Fact) { f.Attrs[0].Value = 1.5 },
		"large":        func(f *fairlead.Fact) { f.Attrs[0].Value = int64(1 << 60) },
		"long":         func(f *fairlead.Fact) { f.Attrs[0].Value = strings.Repeat("x", 4000) },
		"blob":         func(f *fairlead.Fact) { f.Content = []fairlead.Content{{Name: "x", Scope: 1}} },
		"injection":    func(f *fairlead.Fact) { f.Tenant = `a","kind":"b/1` },
	} {
		fact := typical(1)
		f(fact)
		if b, err := AppendEnvelope([]byte("before"), fact, fairlead.SchemaVersion, [16]byte{}); err == nil || string(b) != "before" {
			t.Errorf("%s: %s %v", name, b, err)
		}
	}
}
