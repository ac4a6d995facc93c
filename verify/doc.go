// Package verify checks, offline and without trusting the log's operator, what Fairlead recorded: envelopes, Merkle
// proofs, checkpoints and whole logs. It is for people who do not trust us; docs/format.md specifies every byte that it
// reads, and verify/second holds a reader in a second language.
//
// It withstands an adversary who wrote every byte it reads and does not hold the log's signing key. Whoever holds key
// and disk can rewrite history that nobody else has seen: compare checkpoints that you kept ([CheckConsistency]).
// Time and memory are linear in the input; nothing panics.
package verify
