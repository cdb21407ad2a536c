package setting

import "cmp"

// Between returns a Problem of key if got is less than least or more than most.
func Between[T cmp.Ordered](key string, got, least, most T) error {
	if got < least || got > most {
		return Problemf(key, "%v is not between %v and %v", got, least, most)
	}
	return nil
}
