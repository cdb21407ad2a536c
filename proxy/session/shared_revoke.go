package session

import (
	"context"
	"errors"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// Revoke implements Store. Each session is read and deleted in one step: whoever else
// ends it at the same time does not get it too.
func (s *Shared) Revoke(ctx context.Context, issuer, sid, subject string) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	index := s.indexes(issuer, sid, subject)[0]
	members, err := s.redis.ZRange(ctx, index, 0, -1).Result()
	if err != nil {
		return unavailable("end sessions", err)
	}
	if len(members) == 0 {
		return nil
	}
	var were []*goredis.StringCmd
	_, err = s.redis.TxPipelined(ctx, func(p goredis.Pipeliner) error {
		for _, key := range members {
			were = append(were, p.Get(ctx, key))
		}
		p.Del(ctx, append(slices.Clone(members), index)...)
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) { // nil: one of them had ended before
		return unavailable("end sessions", err)
	}
	var all []*Session
	for i, was := range were {
		if v := s.ended(members[i], was); v != nil {
			all = append(all, v)
		}
	}
	if len(all) > 0 {
		s.told(ctx, all)
	}
	return nil
}

// ended is the session that was kept under a key; nil if there was none, or none that
// can be opened.
func (s *Shared) ended(key string, was *goredis.StringCmd) *Session {
	sealed, err := was.Result()
	if err != nil {
		return nil
	}
	text, err := s.keys.Open(s.purposeOf(strings.TrimPrefix(key, s.prefix+"session:")), []byte(sealed))
	if err != nil {
		return nil
	}
	v, err := decode(text)
	if err != nil || v.Provider != s.name {
		return nil
	}
	return v
}

// RevokeKnown implements Store: an index that is not there has nothing to end.
func (s *Shared) RevokeKnown(ctx context.Context, issuer, sid string) error {
	return s.Revoke(ctx, issuer, sid, "")
}
