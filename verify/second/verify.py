#!/usr/bin/env python3
"""Checks what Fairlead recorded, in a second language and with Python's standard library only. See docs/format.md.

  verify.py proof KEYS FILE                an event in a .tlog-proof file, offline
  verify.py checkpoint KEYS FILE           the signature on a checkpoint
  verify.py log KEYS BASE [OLD]            a log in the tlog-tiles layout; BASE is a folder or URL; it must extend checkpoint OLD
  verify.py consistency KEYS BASE OLD NEW  that the log of checkpoint NEW extends that of OLD
  verify.py envelopes DIR...               the rules of section 1 on each file in the folders

KEYS is a file of verifier keys. ML-DSA-44 lines are not checked: Python has no ML-DSA. This matters once Ed25519 is broken.
Exit code: 0 all is well, 1 it is not, 2 the question cannot be answered. """
import base64, datetime, hashlib, json, os, re, sys
def need(ok, why):
    if not ok:
        raise ValueError(why)
def b64(text, url=False):
    raw = base64.b64decode(text + "=" * (-len(text) % 4) if url else text, b"-_" if url else None, validate=True)
    again = base64.urlsafe_b64encode(raw).rstrip(b"=") if url else base64.b64encode(raw)
    need(again.decode() == text, "%.60r is not canonical base64" % text)
    return raw
def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

# Ed25519 (RFC 8032), slow and short.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
def add(p, q):
    d = D * p[0] * p[1] * q[0] * q[1]
    return (p[0] * q[1] + q[0] * p[1]) * pow(1 + d, -1, P) % P, (p[1] * q[1] + p[0] * q[0]) * pow(1 - d, -1, P) % P
def mul(n, p):
    q = (0, 1)
    for bit in bin(n)[2:]:
        q = add(add(q, q), p) if bit == "1" else add(q, q)
    return q
def point(y):
    sign, y = y >> 255, (y & (1 << 255) - 1) % P
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    x = x if x * x % P == x2 else x * pow(2, (P - 1) // 4, P) % P
    need(x * x % P == x2, "the public key is no point")
    return x if x & 1 == sign else -x % P, y
def ed25519(key, message, sig):
    s = int.from_bytes(sig[32:], "little")
    need(len(sig) == 64 and s < L, "the signature is malformed")
    k = int.from_bytes(hashlib.sha512(sig[:32] + key + message).digest(), "little") % L
    x, y = point(int.from_bytes(key, "little"))
    x, y = add(mul(s, point(4 * pow(5, -1, P) % P)), mul(k, (-x % P, y)))
    return (y | (x & 1) << 255).to_bytes(32, "little") == sig[:32]
# Keys and checkpoints.
def read_key(path):
    for line in open(path, encoding="utf-8").read().split("\n"):
        name, _, rest = line.strip().partition("+")
        key_id, _, key = rest.partition("+")
        if key and b64(key)[0] == 1:
            good = len(b64(key)) == 33 and sha((name + "\n").encode(), b64(key)).hex()[:8] == key_id
            need(good, "the key does not have the hash that it names")
            return name, bytes.fromhex(key_id), b64(key)[1:]
    raise ValueError("there is no Ed25519 verifier key in " + path)
def checkpoint(raw, key):
    name, key_id, pub = key
    text, _, sigs = raw.decode("utf-8").rpartition("\n\n")
    need(re.search("[\x00-\x09\x0b-\x1f]", text + sigs) is None and sigs.endswith("\n"), "the checkpoint is malformed")
    lines = [line.split(" ") for line in sigs[:-1].split("\n")]
    need(all(len(x) == 3 and x[0] == "\u2014" and x[1] and x[2] for x in lines), "a signature line is malformed")
    mine = [sig for _, who, sig in lines if who == name and base64.b64decode(sig)[:4] == key_id]
    need(mine, "the checkpoint is not signed by " + name)
    need(ed25519(pub, (text + "\n").encode(), b64(mine[0])[4:]), "the signature on the checkpoint does not verify")
    lines = text.split("\n")
    need(len(lines) == 3 and lines[0] == name, "the checkpoint is not one of the log " + name)
    need(re.fullmatch("0|[1-9][0-9]{0,18}", lines[1], re.A) and int(lines[1]) < 1 << 63, "the size is not a number")
    need(len(b64(lines[2])) == 32 and (lines[1] != "0" or b64(lines[2]) == sha()), "the root hash is not one")
    return int(lines[1]), b64(lines[2])

# Envelopes.
ID, SURE = "[a-z2-7]{13}-[1-9][0-9]{0,18}", "verified|attested|derived|declared|ambiguous|absent"
HEAD = [("id", ID), ("tenant", "[a-z0-9][a-z0-9-]{0,31}"), ("kind", r"[a-z_]+(\.[a-z_]+)*/[1-9][0-9]{0,3}"),
        ("time", r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"), ("nonce", "[A-Za-z0-9_-]{22}"),
        ("schema", "[A-Za-z0-9._/-]{1,64}")]
KNOWN = ["v"] + [n for n, _ in HEAD] + ["actor", "links", "attrs", "content"]
FACET, LINK, CONTENT = ["v", "a", "m", "i"], ["rel", "to", "a"], ["name", "blob", "scope", "bytes", "address", "sealed"]
def members(pairs):
    need(len(pairs) <= 64 and len(dict(pairs)) == len(pairs), "a member stands twice, or there are more than 64 (E3)")
    return dict(pairs)
def values(v, depth=1):
    need(type(v) is not float and (type(v) is not int or abs(v) < 1 << 53), "a number is no integer, or too large (E11)")
    if type(v) in (dict, list):
        need(depth <= 6, "nested too deep (E3)")
        [values(x, depth + 1) for x in (v.values() if type(v) is dict else v)]
def text(v, rule="(?s:.*)"):
    return type(v) is str and re.fullmatch(rule, v, re.A) is not None
def keys(o, names, required=()):
    order = type(o) is dict and [n for n in names if n in o]
    need(order and order == list(o) and all(n in o for n in required), "an object is not as it must be (E4)")
    return o
def envelope(raw):
    need(len(raw) <= 4096, "longer than 4096 bytes (E1)")
    source = raw.decode("utf-8")
    e = json.loads(source, object_pairs_hook=members)
    # One spelling: what is written again must be what was read.
    need(json.dumps(e, ensure_ascii=False, separators=(",", ":")) == source, "not in its one spelling (E2, E11, E12)")
    values(e)
    keys({n: e[n] for n in e if n in KNOWN}, KNOWN, KNOWN[:7])
    need([n in KNOWN for n in e] == sorted((n in KNOWN for n in e), reverse=True), "members are out of order (E4)")
    need(all(n in KNOWN or text(n, "[a-z][a-z0-9_]{0,31}") for n in e), "a name is not allowed (E4)")
    need(type(e["v"]) is int and e["v"] == 1 and all(text(e[n], rule) for n, rule in HEAD), "one of the first seven (E5 to E10)")
    need(int(e["id"][14:]) < 1 << 63 and b64(e["nonce"], True), "the id is too large (E6)")
    datetime.datetime.strptime(e["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
    actor = keys(e["actor"], ["app", "user", "agent", "chain"]) if "actor" in e else {}
    for f in (keys(actor[n], FACET, ["a"]) for n in actor if n != "chain"):
        need(all(text(x, "(?s:.+)") for x in f.values()) and text(f["a"], SURE), "a facet (E4)")
    for n, v in [("chain", actor.get("chain"))] + [(n, e.get(n)) for n in KNOWN[-3:]]:
        need(v is None and n not in (e if n in KNOWN else actor) or v and type(v) is (dict if n == "attrs" else list), n + " (E4)")
    for l in (keys(l, LINK, LINK) for l in e.get("links", [])):
        need(text(l["rel"], "(?s:.+)") and text(l["to"], ID) and int(l["to"][14:]) < 1 << 63 and text(l["a"], SURE), "a link (E4, E6)")
    for v in [actor.get("chain", [])] + list(e.get("attrs", {}).values()):
        need(type(v) in (str, int, bool) or type(v) is list and all(map(text, v)), "an attribute, or the chain (E4)")
    for c in (keys(c, CONTENT, CONTENT) for c in e.get("content", [])):
        need(text(c["name"]) and all(type(c[n]) is int and c[n] >= (n != "bytes") for n in CONTENT[1:4]), "content (E4, E11)")
        need(all(text(c[n]) and len(b64(c[n], True)) == 32 for n in CONTENT[4:]), "a digest (E4)")
    return e

# The tree (RFC 6962).
def tree(h):
    k = 1 << (len(h) - 1).bit_length() - 1 if len(h) > 1 else 0
    return sha(b"\x01", tree(h[:k]), tree(h[k:])) if k else h[0] if h else sha()
def proof(path, key):
    head, _, note = open(path, "rb").read(160 << 10).partition(b"\n\n")
    lines = head.decode("ascii").split("\n")
    need(lines[0] == "c2sp.org/tlog-proof@v1" and 3 <= len(lines) <= 66, "it is no transparency log proof")
    need(lines[1].startswith("extra ") and re.fullmatch("index (0|[1-9][0-9]{0,18})", lines[2], re.A), "extra or index is missing")
    raw, n = b64(lines[1][6:]), int(lines[2][6:])
    e, (size, root) = envelope(raw), checkpoint(note, key)
    need(n < size, "event %d is not within the %d of the checkpoint" % (n, size))
    h, fn, sn = sha(b"\x00", sha(b"fairlead.event.v1\n", raw)), n, size - 1
    for p in map(b64, lines[3:]):  # RFC 9162 section 2.1.3.2
        need(sn > 0 and len(p) == 32, "a hash too many")
        left = fn & 1 or fn == sn
        h = sha(b"\x01", p, h) if left else sha(b"\x01", h, p)
        while left and fn and not fn & 1:
            fn, sn = fn >> 1, sn >> 1
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0 and h == root, "event %d is not in the log of size %d" % (n, size))
    return "event %d, %s of %s, is in the log %s of size %d (ML-DSA-44 not checked)" % (n, e["kind"], e["time"], key[0], size)

# Tiles (c2sp.org/tlog-tiles).
def fetch(base, name):
    if base.startswith(("http://", "https://")):
        import urllib.request  # slow to load
        return urllib.request.urlopen(base.rstrip("/") + "/" + name, timeout=30).read()
    return open(os.path.join(base, *name.split("/")), "rb").read()
def tiles(base, kind, total, item):
    """Gives the items of a level, tile by tile."""
    for n in range((total + 255) // 256):
        path, m, width = "%03d" % (n % 1000), n // 1000, min(256, total - 256 * n)
        while m:
            path, m = "x%03d/%s" % (m % 1000, path), m // 1000
        raw = fetch(base, "tile/%s/%s%s" % (kind, path, "" if width == 256 else ".p/%d" % width))
        need(len(raw) == item * width, "tile %s/%d has %d bytes" % (kind, n, len(raw)))
        yield from (raw[i:i + item] for i in range(0, len(raw), item))
def consistency(base, key, old, new, entries):
    (m, old_root), (n, new_root) = old, new
    need(m <= n, "the log has %d events, the older checkpoint %d: a log cannot shrink" % (n, m))
    hashes = list(tiles(base, "0", n, 32))
    for i, entry in enumerate(tiles(base, "entries", n, 34) if entries else []):
        need(entry[:2] == b"\x00\x20" and sha(b"\x00", entry[2:]) == hashes[i], "event %d is not the one in tile 0/%d" % (i, i // 256))
    need(tree(hashes) == new_root, "the %d events do not add up to the signed root" % n)
    need(tree(hashes[:m]) == old_root, "the log was rewritten: its first %d events are not those of the older checkpoint" % m)
    level = 0
    while len(hashes) >= 256:
        hashes, level = [tree(hashes[i:i + 256]) for i in range(0, len(hashes) & -256, 256)], level + 1
        for i, h in enumerate(tiles(base, str(level), len(hashes), 32)):
            need(h == hashes[i], "hash %d of tile %d/%d is not the root of the tile below it" % (i % 256, level, i // 256))
    return "the log %s of %d events extends that of %d (ML-DSA-44 not checked)" % (key[0], n, m)
def envelopes(dirs):
    bad, paths = 0, sorted(os.path.join(d, f) for d in dirs for f in os.listdir(d))
    for path in paths:
        try:
            print("accepted", path, envelope(open(path, "rb").read())["id"])
        except (ValueError, TypeError, RecursionError) as err:
            bad += print("refused", path, "-", err) or 1
    need(not bad, "%d of %d envelopes break a rule" % (bad, len(paths)))
    return "%d envelopes keep the rules" % len(paths)
def main(mode, *args):
    if mode == "envelopes": return envelopes(args)
    key = read_key(args[0])
    load = lambda path: checkpoint(open(path, "rb").read(), key)
    if mode == "proof": return proof(args[1], key)
    if mode == "checkpoint":
        return "the log %s had %d events, as it signed (ML-DSA-44 not checked)" % (key[0], load(args[1])[0])
    if mode == "log":
        now = checkpoint(fetch(args[1], "checkpoint"), key)
        return consistency(args[1], key, load(args[2]) if len(args) > 2 else now, now, True)
    return consistency(args[1], key, load(args[2]), load(args[3]), False)
try:
    sys.exit(print(__doc__) or 2) if "y %s " % " ".join(sys.argv[1:2]) not in __doc__ else print("OK:", main(*sys.argv[1:]))
except (OSError, IndexError) as err:
    sys.exit(print("cannot be answered:", err) or 2)
except (ValueError, TypeError, RecursionError) as err:
    sys.exit(print("NOT OK:", err) or 1)
