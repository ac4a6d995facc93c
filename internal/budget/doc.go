// Package budget holds callers to limits: requests in a time, calls at a time, calls, tokens and money in an hour, day or
// month, and how far one run of an agent may go.
//
// A call reserves before it goes upstream what it may use, in all limits that apply or in none, and settles for what it
// did use once its outcome is known. So any number of calls at the same time exceed a limit only by as much as providers
// use more than was reserved.
//
// The ledger is the truth. What counts in a period is the sum over the outcomes in it ([Projection]), so that neither a
// restart nor a crash gives a month back; the counters in memory start from it ([Book.Seed]) and are kept by the same
// arithmetic. Requests in a time and calls at a time begin anew with the process.
//
// The threats are a caller who names himself differently with every call, who starts many calls at once, who goes away
// before the bill comes, or who fills the memory with identities; a provider that reports absurd usage; and a clock that
// goes backwards. Names that nobody vouches for share one counter, estimates stand where usage is not said, each limit
// holds at most Config.Scopes counters of a few hundred bytes and refuses new identities rather than forget what was
// spent, numbers saturate, and time only goes forward. A reservation takes a time linear in the number of limits.
package budget
