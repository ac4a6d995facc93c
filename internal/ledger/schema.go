package ledger

// migrations of ledger.db. There is deliberately no index on events: looking things up is what views are for, and an
// index on random keys would cost three quarters of the throughput (research/ledger.md section 2).
var migrations = []string{`
create table meta(
	name text primary key,
	value any not null
) strict, without rowid;
-- Events first .. first+count-1, whose envelopes are compressed together. No segment crosses a multiple of 256.
create table segment(
	first integer primary key,
	count integer not null,
	codec integer not null,
	data  blob not null
) strict;
-- Complete Merkle tiles; id is level * 2^48 + number.
create table tile(
	id   integer primary key,
	data blob not null
) strict;
-- One row: the tree head, and the highest numbers given out.
create table tree(
	id   integer primary key check (id = 1),
	size integer not null,
	root blob not null
) strict;
create table blob(
	id    integer primary key,
	scope integer not null,
	data  blob not null
) strict;
-- Key scopes. name is null for a conversation's: it is found through the calls that it holds.
create table scope(
	id   integer primary key,
	app  integer not null,
	name blob,
	key  blob not null
) strict;
create unique index scope_name on scope(name) where name is not null;
-- Signed checkpoints: the newest and one an hour. low is the first event that a recovery has to look at.
create table checkpoint(
	size integer primary key,
	time integer not null,
	low  integer not null,
	note blob not null
) strict;
`}
