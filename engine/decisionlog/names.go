package decisionlog

import "strings"

// class says what the name of a value tells about it.
type class uint8

const (
	ordinary class = iota
	secret         // the value is a credential
	link           // the value is a URL
)

// Bounds of what names remembers: clients choose most of the names.
const (
	maxNames   = 1024
	maxNameLen = 64 // bytes
)

// names remembers the class of each name, since few are used over and over and
// finding out takes a look for each word that marks a secret.
type names struct {
	known    map[string]class
	classify func(name string) class
}

func newNames(classify func(string) class) *names {
	return &names{known: map[string]class{}, classify: classify}
}

func (n *names) class(name string) class {
	c, ok := n.known[name]
	if ok {
		return c
	}
	c = n.classify(name)
	if len(name) > maxNameLen {
		return c
	}
	if len(n.known) >= maxNames {
		clear(n.known) // names that are used come back at once
	}
	n.known[strings.Clone(name)] = c
	return c
}
