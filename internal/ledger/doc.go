// Package ledger records facts so that each is durable before anybody acts on it, and so that any later change to what
// was recorded is found by anybody: events in a Merkle log, their content in an encrypted vault, one transaction for
// both.
//
// A [Ledger] has one writer. Whatever has queued while it was busy is committed together (no delay timer): events,
// sealed content, new key scopes, complete Merkle tiles and the tree head stand or fall as one. Partial tiles are not
// stored; they follow from the events. In-memory state changes only after a commit; when a commit fails, what the disk
// holds is looked up before anybody is told anything.
//
// A [Reader] reads a data folder, beside a running Ledger in this or another process or without one, and proves from
// it. Projections ([Views]) live in a second database that can be dropped and rebuilt.
//
// Withstood: kill -9 at any instant; commits that fail without effect and commits that report failure after taking
// effect; a full disk (appends fail, nothing is lost, and they go on when there is room); a restored backup (refused,
// for its next signature would fork the log); a folder already in use. Queues, batches and caches are bounded.
package ledger
