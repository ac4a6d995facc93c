package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// patience is how many calls in a row may fail before a connection gives up.
const patience = 100

// A worker drives one connection.
type worker struct {
	o      *order
	addr   string
	req    []byte
	before [][]byte // requests to be sent once, first
	at     []int    // slots in req
	bodyAt int
	calls  uint64
	number uint64 // of the connection

	conn net.Conn
	br   *bufio.Reader

	total, chunk    []time.Duration
	aborted, errors int64
	first           error
}

func newWorker(o *order, i int) (*worker, error) {
	body, before, err := makeBody(o.size, i, o.fresh, o.stream)
	if err != nil {
		return nil, err
	}
	w := &worker{o: o, addr: o.target.Host, number: uint64(i)}
	for _, b := range before {
		req, _ := w.request(b)
		w.before = append(w.before, req)
	}
	w.req, w.bodyAt = w.request(body)
	w.at = slots(w.req)
	return w, nil
}

// request puts the head in front of a body and says where the body starts.
func (w *worker) request(body []byte) (req []byte, at int) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", w.o.target.RequestURI(), w.o.target.Host, len(body))
	for _, h := range w.o.headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	at = b.Len()
	b.Write(body)
	return b.Bytes(), at
}

// grow sends the requests that led to the conversation. What goes wrong here shows in the calls that count.
func (w *worker) grow() {
	req, at := w.req, w.at
	defer func() { w.req, w.at = req, at }()
	w.at = nil
	for _, b := range w.before {
		w.req = b
		if err := w.call(time.Now(), false, false); err != nil {
			w.hangUp()
			return
		}
	}
}

func (w *worker) body() []byte { return w.req[w.bodyAt:] }

// loop calls until ctx ends or the calls are used up. Calls that start before from do not count.
func (w *worker) loop(ctx context.Context, next func() time.Time, from time.Time, calls *atomic.Int64) {
	defer w.hangUp()
	w.grow()
	failed := 0
	for failed < patience {
		start := time.Now()
		if next != nil {
			due := next()
			if wait := due.Sub(start); wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return
				}
				due = time.Now()
			}
			start = due
		}
		if ctx.Err() != nil {
			return
		}
		n := calls.Add(1)
		if w.o.most > 0 && n > w.o.most {
			return
		}
		err := w.call(start, !start.Before(from), w.o.abort > 0 && n%int64(w.o.abort) == 0)
		switch {
		case err == nil:
			failed = 0
			continue
		case errors.Is(err, errAborted):
			w.aborted++
			failed = 0
		default:
			failed++
			w.errors++
			if w.first == nil {
				w.first = err
			}
		}
		w.hangUp()
	}
}

func (w *worker) hangUp() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// errAborted is what a call ends with when it was our plan to hang up.
var errAborted = errors.New("hung up on purpose")

// call makes one call. One that is to be aborted hangs up after the first event of a stream, and otherwise as soon as
// the request is sent.
func (w *worker) call(start time.Time, count, abort bool) error {
	if w.conn == nil {
		c, err := net.DialTimeout("tcp", w.addr, 5*time.Second)
		if err != nil {
			return err
		}
		w.conn, w.br = c, bufio.NewReaderSize(c, 32<<10)
	}
	w.conn.SetDeadline(time.Now().Add(30 * time.Second))
	w.calls++
	fill(w.req, w.at, w.number*1e8+w.calls)
	if _, err := w.conn.Write(w.req); err != nil {
		return err
	}
	if abort && !w.o.stream {
		return errAborted
	}
	h, err := w.head()
	if err != nil {
		return err
	}
	switch {
	case h.chunked:
		err = w.chunks(count, abort, h.ok)
	case h.length >= 0:
		_, err = w.br.Discard(h.length)
	default:
		_, err = io.Copy(io.Discard, w.br)
		h.closing = true
	}
	if err != nil {
		return err
	}
	if h.closing {
		w.hangUp()
	}
	if !h.ok {
		return fmt.Errorf("answered %s", h.status)
	}
	if count {
		w.total = append(w.total, time.Since(start))
	}
	return nil
}

// A head is what matters of a response's head.
type head struct {
	ok      bool
	status  string
	length  int // -1 when not said
	chunked bool
	closing bool
}

func (w *worker) head() (h head, err error) {
	line, err := w.br.ReadSlice('\n')
	if err != nil {
		return h, err
	}
	h.length = -1
	h.ok = len(line) > 12 && string(line[9:12]) == "200"
	if !h.ok {
		h.status = string(bytes.TrimSpace(line))
	}
	for {
		if line, err = w.br.ReadSlice('\n'); err != nil {
			return h, err
		}
		if len(line) <= 2 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 {
				return h, fmt.Errorf("the length %q is no number", value)
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			h.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")):
			h.closing = bytes.EqualFold(value, []byte("close"))
		}
	}
}

// chunks reads a chunked body and, in a stream, the time stamps of its events.
func (w *worker) chunks(count, abort, ok bool) error {
	done := false
	for {
		line, err := w.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is no chunk size", line)
		}
		if n == 0 {
			if _, err := w.br.Discard(2); err != nil {
				return err
			}
			if w.o.stream && ok && !done {
				return errors.New("the stream ended without [DONE]")
			}
			return nil
		}
		if w.o.stream && int(n) <= w.br.Size() {
			b, err := w.br.Peek(int(n))
			if err != nil {
				return err
			}
			if count {
				w.stamps(b)
			}
			done = done || bytes.Contains(b, []byte("[DONE]"))
		}
		if abort {
			return errAborted
		}
		if _, err := w.br.Discard(int(n) + 2); err != nil {
			return err
		}
	}
}

// stamps records the age of every "t=NANOSECONDS " in b.
func (w *worker) stamps(b []byte) {
	now := time.Now().UnixNano()
	for {
		_, rest, found := bytes.Cut(b, []byte(`"t=`))
		if !found {
			return
		}
		digits, rest, found := bytes.Cut(rest, []byte(" "))
		if !found {
			return
		}
		if t, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
			w.chunk = append(w.chunk, time.Duration(now-t))
		}
		b = rest
	}
}
