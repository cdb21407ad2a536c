package engine_test

import (
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// neighbour returns a copy of in that differs in one place. It finds the places by
// reflection, so that a new field is one.
func neighbour(r *rand.Rand, in *authz.Input) *authz.Input {
	out := reflect.New(reflect.TypeFor[authz.Input]()).Elem()
	copyValue(out, reflect.ValueOf(in).Elem())
	var places []func()
	collect(r, out, &places)
	places[r.IntN(len(places))]()
	changed, _ := reflect.TypeAssert[*authz.Input](out.Addr())
	return changed
}

// copyValue copies deeply, but for what is not exported: a copied identity has no
// memo.
func copyValue(to, from reflect.Value) {
	switch from.Kind() {
	case reflect.Struct:
		if from.Type() == reflect.TypeFor[time.Time]() {
			to.Set(from)
			return
		}
		for i := range from.NumField() {
			if from.Type().Field(i).IsExported() {
				copyValue(to.Field(i), from.Field(i))
			}
		}
	case reflect.Pointer:
		if !from.IsNil() {
			to.Set(reflect.New(from.Type().Elem()))
			copyValue(to.Elem(), from.Elem())
		}
	case reflect.Slice:
		if !from.IsNil() {
			to.Set(reflect.AppendSlice(reflect.MakeSlice(from.Type(), 0, from.Len()), from))
		}
	case reflect.Map:
		if !from.IsNil() {
			to.Set(reflect.MakeMap(from.Type()))
			for _, k := range from.MapKeys() {
				to.SetMapIndex(k, from.MapIndex(k))
			}
		}
	default:
		to.Set(from)
	}
}

// collect lists the ways to change v.
func collect(r *rand.Rand, v reflect.Value, places *[]func()) {
	add := func(f func()) { *places = append(*places, f) }
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			add(func() { v.Set(reflect.ValueOf(pick(r, time.Time{}, time.Unix(1767323045+r.Int64N(3600), 0)))) })
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Name != "Entrypoint" {
				collect(r, v.Field(i), places)
			}
		}
	case reflect.Pointer:
		if v.IsNil() {
			add(func() { v.Set(reflect.New(v.Type().Elem())) })
			return
		}
		add(func() { v.SetZero() })
		collect(r, v.Elem(), places)
	case reflect.String:
		add(func() { v.SetString(pick(r, "", "x", "GET", "/v1/orders/42", "acme", "reader", v.String()+"x")) })
	case reflect.Bool:
		add(func() { v.SetBool(!v.Bool()) })
	case reflect.Int, reflect.Int64:
		add(func() { v.SetInt(pick(r, int64(-1), 0, 1, 443, v.Int()+1)) })
	case reflect.Slice:
		add(func() { v.SetZero() })
		add(func() { v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem())) })
		for i := range v.Len() {
			collect(r, v.Index(i), places)
		}
	case reflect.Map:
		add(func() { v.SetZero() })
		add(func() { changeMember(r, v) })
	case reflect.Interface: // the body
		add(func() { v.SetZero() })
	}
}

func changeMember(r *rand.Rand, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	key := reflect.ValueOf(pick(r, "roles", "n", "sub", "id", "header", "zone", "alg", "new"))
	if r.IntN(3) == 0 {
		v.SetMapIndex(key, reflect.Value{})
		return
	}
	if v.Type().Elem().Kind() == reflect.String {
		v.SetMapIndex(key, reflect.ValueOf(pick(r, "", "x-a", "42", "z")))
		return
	}
	value := pick[any](r, "reader", "", []any{"reader"}, []any{}, true, map[string]any{"a": "b"}, "writer")
	v.SetMapIndex(key, reflect.ValueOf(value))
}
