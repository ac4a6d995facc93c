package rig

import "strings"

// Answer is the text of every answer of the mock upstream that is not streamed: about half a kilobyte.
var Answer = strings.Repeat("A harbour pilot steps aboard where the channel narrows and leaves where it opens. ", 6)
