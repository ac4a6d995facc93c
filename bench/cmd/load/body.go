package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/fairleadhq/fairlead/bench/internal/rig"
)

// slot is the place of a number in a request that is overwritten before each call, so that no two calls are the same.
const slot = "@@@@@@@@@@@@"

// makeBody gives a chat request of about size bytes with slots in it. With fresh "turn" only the last message changes
// from call to call, as when a conversation goes on; with "all" every message does. conn tells the conversations of
// different connections apart. Requests of 8 KB and more offer tools, and with "turn" they are real conversations: the
// assistant's turns are what the mock upstream answers, and before are the requests that led there, to be sent once.
func makeBody(size, conn int, fresh string, stream bool) (body []byte, before [][]byte, err error) {
	if fresh != "turn" && fresh != "all" {
		return nil, nil, fmt.Errorf("-fresh %s is neither turn nor all", fresh)
	}
	grown := fresh == "turn" && size >= 8000
	r := rand.New(rand.NewPCG(7, uint64(conn)))
	var b bytes.Buffer
	b.WriteString(`{"model":"gpt-4o-mini","messages":[{"role":"system","content":"`)
	b.WriteString(text(rand.New(rand.NewPCG(7, 7)), min(size/3, 4000)))
	b.WriteString(`"}`)
	tail := `],"temperature":0.2,"max_tokens":200}`
	if stream {
		tail = `],"temperature":0.2,"stream":true}`
	}
	if size >= 8000 {
		tail = `],"tools":[` + tools(6) + tail[1:]
	}
	last := fmt.Sprintf(`,{"role":"user","content":"Question %s: what should be done next, and why?"}`, slot)
	for i := 0; ; i++ {
		role := [2]string{"user", "assistant"}[i%2]
		mark := fmt.Sprintf("Conversation %d. ", conn)
		if fresh == "all" {
			mark = "Number " + slot + ". "
		}
		room := size - b.Len() - len(tail) - len(last) - len(mark) - 40
		if grown {
			room -= len(rig.Answer)
		}
		if room < 60 && i%2 == 0 {
			break
		}
		if grown && i%2 == 1 {
			before = append(before, append(bytes.Clone(b.Bytes()), tail...))
			fmt.Fprintf(&b, `,{"role":"assistant","content":"%s"}`, rig.Answer)
			continue
		}
		fmt.Fprintf(&b, `,{"role":"%s","content":"%s%s"}`, role, mark, text(r, max(20, min(room, 900+r.IntN(600)))))
	}
	b.WriteString(last)
	b.WriteString(tail)
	return b.Bytes(), before, nil
}

var vocabulary = strings.Fields(`the a of to and in that it is was for on with as at by from or an be this which claim policy
	customer agent record damage water garage invoice photo report repair estimate letter reply number street insurer date
	amount paid missing signed second first broken window roof pipe kitchen carpet neighbour called wrote sent asked agreed
	refused waited returned checked approved found because although before after until within about every other small large`)

// text gives n bytes of words.
func text(r *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(vocabulary[r.IntN(len(vocabulary))])
		b.WriteByte(' ')
	}
	return b.String()[:n]
}

func tools(n int) string {
	var b strings.Builder
	r := rand.New(rand.NewPCG(3, 3))
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"type":"function","function":{"name":"tool_%d","description":"%s","parameters":{"type":"object","properties":{`, i, text(r, 200))
		fmt.Fprintf(&b, `"id":{"type":"string","description":"%s"},"amount":{"type":"number","description":"%s"}},"required":["id"]}}}`, text(r, 80), text(r, 80))
	}
	return b.String() + `]`
}

// slots gives the offsets of the slots in b.
func slots(b []byte) (at []int) {
	for i := 0; ; {
		j := bytes.Index(b[i:], []byte(slot))
		if j < 0 {
			return at
		}
		at = append(at, i+j)
		i += j + len(slot)
	}
}

// fill writes n into the slots.
func fill(b []byte, at []int, n uint64) {
	for _, i := range at {
		v := n
		for j := len(slot) - 1; j >= 0; j-- {
			b[i+j] = byte('0' + v%10)
			v /= 10
		}
	}
}
