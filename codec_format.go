package es

import (
	"fmt"
	"maps"
	"slices"

	"github.com/thalo-go/es/internal/form"
)

// Fallback makes Decode read what c has no name for by another codec. It is for a log that moves from one format to another:
//
//	var Codec = es.NewCodec("application/cbor", map[string]Event{"deposited.cbor": Deposited{}}, cbor.Marshal, cbor.Unmarshal).
//		Fallback(es.JSON(map[string]Event{"deposited": Deposited{}}))
//
// Events are written by c alone, so it needs a name for each. The formats are told apart by the stored name and never by looking at the data,
// so the names of both codecs differ: Fallback panics if one is in use in both. A program that does not know the new names, such as the release before,
// then gets an [*UnknownEventError] and not the wrong event. To deploy without a gap, release the old codec with the new one as its Fallback
// first, then the other way round.
//
// Configure the old codec before. It may have a Fallback too, and may be one of [CodecFunc]; c may not. Fallback is called once.
func (c *Codec[E]) Fallback(old *Codec[E]) *Codec[E] {
	switch {
	case old == nil || c.fallback != nil:
		panic("es: codec: Fallback needs a codec, and is called once")
	case c.decode != nil:
		panic("es: codec: Fallback of a CodecFunc: call the other codec in its functions")
	}
	for o := old; o != nil; o = o.fallback {
		if o == c {
			panic("es: codec: Fallback to the codec itself")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.decoders)) {
		if old.reads(name) {
			panic(fmt.Sprintf("es: codec: event name %q is in both codecs: give the new format a new name, such as %q", name, name+".v2"))
		}
	}
	for name := range c.retired {
		if old.reads(name) {
			panic(fmt.Sprintf("es: codec: event name %q is in both codecs: retire it in the old one alone", name))
		}
	}
	c.fallback, c.form.Fallback = old, &old.form
	return c
}

// Exact promises that the named events, or all without a name, are equal to what Encode and Decode make of them, and that nothing modifies an
// event after Decide has returned it. A [Repo] then takes the event itself into its state and results. Otherwise it decodes what it wrote,
// which costs time and keeps a state from differing between the process that wrote an event and one that reads it.
//
// [JSON] finds out for which types this is so. The promise is for other codecs. TestCodec of package estest checks that the events are equal.
// Exact panics if there is no event of a name. A [CodecFunc] has no names, so there it is about all events.
func (c *Codec[E]) Exact(names ...string) *Codec[E] {
	if c.decode != nil && len(names) == 0 {
		c.exact = true
		return c
	}
	for _, name := range names {
		if !slices.Contains(c.Names(), name) {
			panic(fmt.Sprintf("es: codec: Exact(%q): there is no event %q", name, name))
		}
	}
	if c.form.Exact == nil {
		c.form.Exact = make(map[string]bool)
	}
	for t, event := range c.types {
		if len(names) == 0 || slices.Contains(names, event.name) {
			c.types[t] = eventType{event.name, true}
			c.form.Exact[event.name] = true
		}
	}
	return c
}

// ContentType returns the media type of a record's data, such as application/json, for ContentType of a kafka.Relay. It is empty
// if the codec does not know: for a [CodecFunc], and for a name that the codec does not read. For the records of several codecs use
// cmp.Or(a.ContentType(r), b.ContentType(r)).
func (c *Codec[E]) ContentType(r Record) string {
	switch {
	case c.decoders[r.Type] != nil || c.retired[r.Type]:
		return c.contentType
	case c.fallback != nil:
		return c.fallback.ContentType(r)
	}
	return ""
}

// Form returns what other packages of this module, such as estest, need to know of a codec. It is not for users.
func (c *Codec[E]) Form() *form.Form { return &c.form }
