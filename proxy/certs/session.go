package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"slices"
)

// sessions keeps TLS sessions from being resumed under other rules than they were made
// with: other settings of client certificates, other authorities, other lists.
type sessions struct {
	mark [sha256.Size]byte // what a session was made with, which its ticket carries
	keys *tls.Config       // encrypts tickets
}

func newSessions(keys *tls.Config, settings string, cl *clients) sessions {
	digest := sha256.New()
	digest.Write([]byte(settings))
	if cl != nil {
		digest.Write(cl.trust[:])
	}
	return sessions{mark: [sha256.Size]byte(digest.Sum(nil)), keys: keys}
}

// wrap marks a ticket.
func (s sessions) wrap(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
	if !s.marked(ss) { // a resumed session brings its marks along
		ss.Extra = append(ss.Extra, s.mark[:])
	}
	return s.keys.EncryptTicket(cs, ss)
}

// unwrap takes tickets with the same mark only. Others get a full handshake, which
// asks for the certificate again.
func (s sessions) unwrap(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	ss, err := s.keys.DecryptTicket(ticket, cs)
	if err != nil || ss == nil || !s.marked(ss) {
		return nil, err
	}
	return ss, nil
}

func (s sessions) marked(ss *tls.SessionState) bool {
	return slices.ContainsFunc(ss.Extra, func(mark []byte) bool { return bytes.Equal(mark, s.mark[:]) })
}
