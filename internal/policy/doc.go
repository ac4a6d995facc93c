// Package policy decides who may let which model and tool do what, with data of which label, on whose behalf. Policies
// are Cedar (https://docs.cedarpolicy.com), written against a schema of ours; the package is pure: it reads no clock, no
// file and no ledger.
//
// Cedar skips a policy that errors, and so an erroring forbid forbids nothing. Here any error denies: policies are
// validated against the schema when they are loaded, requests when they are decided, and a verdict with an error in it
// is a refusal that names the policy. Cedar permits or forbids; a forbid with @effect("hold") holds instead: what it
// stops may pass once @approvers("N") people (1 if it is absent) endorsed exactly that. When a plain forbid applies as
// well, the verdict is deny.
//
// Endorsements: [Set.Decide] takes the number of people who endorsed exactly the request, and a hold that as many or
// more have endorsed as it asks for no longer holds. Policies need not mention approvals, and none can forget to. A deny
// is never released.
//
// Withstood: a policy that errors, contradicts another or was written to be slow; entities that lie in a cycle: they are
// made here, one level deep. Bounds: 1 MiB a file, 64 levels of nesting, 1,000 operators and 20,000 listed values a
// policy, checked before Cedar's own recursive parser sees it; 100,000 policies; 1,000 groups and 10,000 elements of any
// other list a request. Policies are found by their scope, so that the time a decision takes depends on those that could
// apply and not on how many there are: about 8 µs at 100 policies and at 10,000.
package policy
