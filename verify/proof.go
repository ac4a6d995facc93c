package verify

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead"
	"golang.org/x/mod/sumdb/tlog"
)

// proofHeader is the first line of a proof file (c2sp.org/tlog-proof).
const proofHeader = "c2sp.org/tlog-proof@v1"

// A Proof shows, offline, that an event stands in a log: a c2sp.org/tlog-proof file with the envelope as its extra data.
type Proof struct {
	Envelope   []byte
	Index      int64
	Hashes     tlog.RecordProof
	Checkpoint []byte // signed note, verbatim
}

// Format gives the proof file.
func (p Proof) Format() []byte {
	var b strings.Builder
	b.WriteString(proofHeader + "\n")
	b.WriteString("extra " + base64.StdEncoding.EncodeToString(p.Envelope) + "\n")
	b.WriteString("index " + strconv.FormatInt(p.Index, 10) + "\n")
	for _, h := range p.Hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n")
	b.Write(p.Checkpoint)
	return []byte(b.String())
}

// maxProof bounds a proof file: an envelope, 63 hashes and a checkpoint.
const maxProof = 16<<10 + maxCheckpoint

// ParseProof reads a proof file. It checks the form only; call [Proof.Check] before believing anything in it.
func ParseProof(file []byte) (Proof, error) {
	if len(file) > maxProof {
		return Proof{}, fmt.Errorf("a proof of %d bytes is too long to be one", len(file))
	}
	head, checkpoint, ok := strings.Cut(string(file), "\n\n")
	if !ok {
		return Proof{}, errors.New("the proof has no empty line before its checkpoint: it was cut off")
	}
	lines := strings.Split(head, "\n")
	if lines[0] != proofHeader {
		return Proof{}, fmt.Errorf("the file does not start with %q: it is no transparency log proof", proofHeader)
	}
	p := Proof{Checkpoint: []byte(checkpoint)}
	lines = lines[1:]
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "extra ") {
		return Proof{}, errors.New("the proof has no extra line: the envelope that it proves is missing")
	}
	if p.Envelope, ok = strictBase64(lines[0][len("extra "):]); !ok {
		return Proof{}, errors.New("the proof's extra line is not base64")
	}
	lines = lines[1:]
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return Proof{}, errors.New("the proof has no index line")
	}
	index := lines[0][len("index "):]
	var err error
	if p.Index, err = strconv.ParseInt(index, 10, 64); err != nil || p.Index < 0 || strconv.FormatInt(p.Index, 10) != index {
		return Proof{}, fmt.Errorf("the proof's index %.30q is not a number", index)
	}
	if len(lines) > 64 {
		return Proof{}, fmt.Errorf("the proof has %d hashes; no tree is that high", len(lines)-1)
	}
	for _, l := range lines[1:] {
		h, ok := strictBase64(l)
		if !ok || len(h) != tlog.HashSize {
			return Proof{}, fmt.Errorf("the proof's line %.60q is not a hash", l)
		}
		p.Hashes = append(p.Hashes, tlog.Hash(h))
	}
	return p, nil
}

// Check verifies the proof against the log's keys and returns the fact that it proves and the checkpoint that it hangs on.
func (p Proof) Check(k Keys) (*Envelope, Checkpoint, error) {
	env, err := ParseEnvelope(p.Envelope)
	if err != nil {
		return nil, Checkpoint{}, fmt.Errorf("the proof's envelope: %w", err)
	}
	c, err := k.OpenCheckpoint(p.Checkpoint)
	if err != nil {
		return nil, Checkpoint{}, err
	}
	if err := tlog.CheckRecord(p.Hashes, c.Size, c.Root, p.Index, LeafHash(p.Envelope)); err != nil {
		return nil, c, fmt.Errorf("event %d is not in the log of size %d: %w", p.Index, c.Size, err)
	}
	return env, c, nil
}

// CheckConsistency verifies that the log of newer extends that of older, by the hashes of a tlog.TreeProof.
func CheckConsistency(older, newer Checkpoint, proof tlog.TreeProof) error {
	switch {
	case older.Origin != newer.Origin:
		return fmt.Errorf("the checkpoints are of two logs, %q and %q", older.Origin, newer.Origin)
	case older.Size > newer.Size:
		return fmt.Errorf("the older checkpoint has %d events, the newer %d: a log cannot shrink", older.Size, newer.Size)
	case older.Size == 0:
		return nil
	}
	if err := tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root); err != nil {
		return fmt.Errorf("the log was rewritten between its sizes %d and %d: %w", older.Size, newer.Size, err)
	}
	return nil
}

// An Envelope is a fact with what only its bytes say.
type Envelope struct {
	fairlead.Fact
	Schema string
	Nonce  [16]byte
}
