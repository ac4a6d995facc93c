// Package provenance finds out what a call follows from, and answers why something happened.
//
// Provenance is observed, not declared. A request that repeats an earlier prompt and the answer we returned to it
// continues that call; a tool result belongs to the answer that asked for the tool; an assistant turn that we never
// returned is somebody's claim. The [Linker] sees this on live traffic, [Why] walks it backwards afterwards.
//
// Withstood: a caller who invents turns, or resends another's prompt to be taken for its continuation. Links stay
// within one tenant, application and verified subject; to be taken for a continuation one has to know the answer; where
// several calls fit, all of them are named and none is believed. What a caller declares only narrows what was observed.
//
// The linker's memory is bounded; what it forgets is linked no more, which errs to the side of distrust. It keeps
// hashes in memory only.
package provenance
