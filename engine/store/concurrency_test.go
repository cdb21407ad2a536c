package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/storage"
)

func TestTriggersSeeTheNewStateBeforeAnybodyElse(t *testing.T) {
	s := open(t, doc)
	ctx := t.Context()
	var events []storage.TriggerEvent
	var inTrigger, outside string
	register := begin(t, s, storage.WriteParams)
	handle, err := s.Register(ctx, register, storage.TriggerConfig{OnCommit: func(_ context.Context, txn storage.Transaction, e storage.TriggerEvent) {
		events = append(events, e)
		inTrigger, outside = read(t, s, txn, "/b/v1"), readCommitted(t, s, "/b/v1")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, register); err != nil {
		t.Fatal(err)
	}
	events = nil

	params := storage.WriteParams
	params.Context = storage.NewContext()
	params.Context.Put("key", "value")
	w := begin(t, s, params)
	write := func(op storage.PatchOp, p string, v any) {
		t.Helper()
		if err := s.Write(ctx, w, op, path(p), v); err != nil {
			t.Fatal(err)
		}
	}
	write(storage.AddOp, "/b/v1", "new")
	write(storage.AddOp, "/a/-", 5)
	write(storage.RemoveOp, "/g/a", nil)
	write(storage.AddOp, "/n", map[string]any{})
	write(storage.AddOp, "/n/below", true) // within /n, so no event of its own
	if err := s.UpsertPolicy(ctx, w, "p", []byte("package p")); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, w); err != nil {
		t.Fatal(err)
	}

	if inTrigger != `"new"` || outside != `"hello"` {
		t.Errorf("trigger saw %s and others %s", inTrigger, outside)
	}
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	if got := events[0].Context.Get("key"); got != "value" {
		t.Errorf("context of the transaction is lost: %v", got)
	}
	var got []string
	for _, d := range events[0].Data {
		if d.Removed {
			got = append(got, d.Path.String()+" removed")
			continue
		}
		got = append(got, d.Path.String()+" "+render(t, d.Data, nil))
	}
	slices.Sort(got)
	want := []string{"/a [1,2,3,4,5]", `/b/v1 "new"`, "/g/a removed", `/n {"below":true}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if p := events[0].Policy; len(p) != 1 || p[0].ID != "p" || p[0].Removed {
		t.Errorf("policy events: %+v", p)
	}

	handle.Unregister(ctx, w)
	if err := storage.WriteOne(ctx, s, storage.AddOp, path("/b/v1"), "later"); err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 {
		t.Error("an unregistered trigger ran")
	}
}

func TestFailedCommitChangesNothing(t *testing.T) {
	s := open(t, doc)
	ctx := t.Context()
	w := begin(t, s, storage.WriteParams)
	if _, err := s.Register(ctx, w, storage.TriggerConfig{OnCommit: func(context.Context, storage.Transaction, storage.TriggerEvent) {
		panic("broken trigger")
	}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(ctx, w, storage.AddOp, path("/b/v1"), "new"); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, w); code(err) != storage.InternalErr {
		t.Errorf("commit: %v", err)
	}
	if got := readCommitted(t, s, "/b/v1"); got != `"hello"` {
		t.Errorf("state after a failed commit: %s", got)
	}
	again := begin(t, s, storage.WriteParams) // would block if the writer were still held
	s.Abort(ctx, again)
}

// A reader that keeps its transaction open delays neither a commit nor the
// readers that come while the commit waits. The clock stands still unless somebody
// waits for it, however busy the machine is.
func TestSlowReaderDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, doc)
		slow := begin(t, s)
		start := time.Now()
		if err := storage.WriteOne(t.Context(), s, storage.AddOp, path("/b/v1"), "new"); err != nil {
			t.Fatal(err)
		}
		if got := readCommitted(t, s, "/b/v1"); got != `"new"` {
			t.Error(got)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("commit and read waited %v beside an open reader", waited)
		}
		if got := read(t, s, slow, "/b/v1"); got != `"hello"` {
			t.Error(got)
		}
		s.Abort(t.Context(), slow)
	})
}

func TestReadersGoOnWhileATriggerRuns(t *testing.T) {
	s := open(t, doc)
	ctx := t.Context()
	entered, leave := make(chan struct{}), make(chan struct{})
	w := begin(t, s, storage.WriteParams)
	if _, err := s.Register(ctx, w, storage.TriggerConfig{OnCommit: func(context.Context, storage.Transaction, storage.TriggerEvent) {
		close(entered)
		<-leave
	}}); err != nil {
		t.Fatal(err)
	}
	committed := make(chan error, 1)
	go func() { committed <- s.Commit(ctx, w) }()
	<-entered
	if got := readCommitted(t, s, "/a/0"); got != "1" { // would deadlock under a lock
		t.Error(got)
	}
	close(leave)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
}

func TestWritersWaitForEachOther(t *testing.T) {
	s := open(t, doc)
	first := begin(t, s, storage.WriteParams)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.NewTransaction(ctx, storage.WriteParams); !errors.Is(err, context.Canceled) {
		t.Errorf("second writer beside an open one: %v", err)
	}
	s.Abort(t.Context(), first)
	s.Abort(t.Context(), first) // ignored: it must not free a writer's place twice
	second := begin(t, s, storage.WriteParams)
	if _, err := s.NewTransaction(ctx, storage.WriteParams); !errors.Is(err, context.Canceled) {
		t.Errorf("third writer beside an open one: %v", err)
	}
	s.Abort(t.Context(), second)
}

// Readers do not wait for a writer, whatever it has done and not committed.
func TestReadersGoOnBesideAnOpenWriter(t *testing.T) {
	s := open(t, doc)
	w := begin(t, s, storage.WriteParams)
	if err := s.Write(t.Context(), w, storage.RemoveOp, path("/b"), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Truncate(t.Context(), w, storage.TransactionParams{BasePaths: []string{"b"}}, &files{
		list: []storage.Update{{Path: path("/b"), Value: []byte(`{"v1": "new"}`)}},
	}); err != nil {
		t.Fatal(err)
	}
	for range 100 { // would deadlock if one of them waited
		if got := readCommitted(t, s, "/b/v1"); got != `"hello"` {
			t.Fatalf("a reader sees %s of an open write transaction", got)
		}
	}
	if err := s.Commit(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if got := readCommitted(t, s, "/b/v1"); got != `"new"` {
		t.Errorf("after the commit: %s", got)
	}
}

// There is never a moment without an open reader here, and the writer gets in
// nevertheless: each reader ends only once the next has begun, and the last only
// after the commits.
func TestReadersDoNotStarveTheWriter(t *testing.T) {
	s := open(t, doc)
	reader := begin(t, s)
	for i := range 100 {
		next := begin(t, s)
		s.Abort(t.Context(), reader)
		reader = next
		if err := storage.WriteOne(t.Context(), s, storage.AddOp, path("/b/v1"), i); err != nil {
			t.Fatal(err)
		}
	}
	if got := readCommitted(t, s, "/b/v1"); got != "99" {
		t.Errorf("after 100 commits: %s", got)
	}
	if got := read(t, s, reader, "/b/v1"); got != "98" {
		t.Errorf("the last reader sees %s, want what was committed when it began", got)
	}
	s.Abort(t.Context(), reader)
}
