package text

import (
	"unicode"
	"unicode/utf8"
)

// sign gives the ASCII form of punctuation and of letters that are drawings rather than letters, or 0. Small capitals
// and squared letters are not covered by NFKC.
func sign(r rune) byte {
	switch {
	case r < 0x2010:
		switch r {
		case 'ı':
			return 'i'
		case 'ɑ':
			return 'a'
		case 'ɡ':
			return 'g'
		case 'ɪ':
			return 'i'
		case '´', 'ʹ', 'ʼ', 'ʻ':
			return '\''
		case '«', '»':
			return '"'
		}
		return smallCapital(r)
	case r <= 0x2015, r == 0x2212, r == 0x2043:
		return '-'
	case r >= 0x2018 && r <= 0x201B, r == 0x2032, r == 0x2039, r == 0x203A:
		return '\''
	case r >= 0x201C && r <= 0x201F, r == 0x2033:
		return '"'
	case r == 0x2044, r == 0x2215:
		return '/'
	case r >= 0x1F150 && r <= 0x1F169:
		return byte('a' + r - 0x1F150)
	case r >= 0x1F170 && r <= 0x1F189:
		return byte('a' + r - 0x1F170)
	case r >= 0x1F1E6 && r <= 0x1F1FF:
		return byte('a' + r - 0x1F1E6)
	}
	return smallCapital(r)
}

func smallCapital(r rune) byte {
	switch r {
	case 'ᴀ':
		return 'a'
	case 'ʙ':
		return 'b'
	case 'ᴄ':
		return 'c'
	case 'ᴅ':
		return 'd'
	case 'ᴇ':
		return 'e'
	case 'ꜰ':
		return 'f'
	case 'ɢ':
		return 'g'
	case 'ʜ':
		return 'h'
	case 'ᴊ':
		return 'j'
	case 'ᴋ':
		return 'k'
	case 'ʟ':
		return 'l'
	case 'ᴍ':
		return 'm'
	case 'ɴ':
		return 'n'
	case 'ᴏ':
		return 'o'
	case 'ᴘ':
		return 'p'
	case 'ʀ':
		return 'r'
	case 'ꜱ':
		return 's'
	case 'ᴛ':
		return 't'
	case 'ᴜ':
		return 'u'
	case 'ᴠ':
		return 'v'
	case 'ᴡ':
		return 'w'
	case 'ʏ':
		return 'y'
	case 'ᴢ':
		return 'z'
	}
	return 0
}

// A double is the Latin letter that a Cyrillic, Greek or Armenian one looks like. Both says that its other case looks
// like that letter too, so that mapping it keeps upper and lower case equal.
type double struct {
	latin byte
	both  bool
}

// Greek, Coptic, Cyrillic and Armenian, where all doubles are.
const firstDouble, lastDouble = 0x370, 0x590

// doubles follows the confusables table of UTS #39, as far as single letters go. It is indexed from firstDouble.
var doubles = func() (m [lastDouble - firstDouble]double) {
	add := func(both bool, pairs string) { // each letter followed by its double
		var from rune
		for _, r := range pairs {
			if from == 0 {
				from = r
				continue
			}
			m[from-firstDouble] = double{byte(r), both}
			from = 0
		}
	}
	add(true, "аaАaеeЕeоoОoрpРpсcСcуyУyхxХxіiІiѕsЅsјjЈjһhҺhԛqԚqԝwԜwүyҮy")
	add(true, "οoΟoρpΡpχxΧxιiΙiκkΚkτtΤtαaΑa")
	add(false, "ВbНhКkМmТtкkмmтtвbнhԁdӏlҽeЗ3ӀlВbьb")
	add(false, "ΒbΕeΖzΗhΜmΝnΥyεeηnνvυuωwγyβb")
	add(false, "ոnսuօoցgհhզqՕo")
	return m
}()

// mixing is what a word with a double in it is made of.
type mixing uint8

const (
	foreign    mixing = iota // letters of another script only, and not all of them doubles
	latinMixed               // a Latin letter among them
	allDoubles               // only letters that are doubles in both cases
)

// maxWord bounds how much of a word is looked at, on either side.
const maxWord = 64

// mixed says what the word around byte i of s is made of, and how far that holds.
func mixed(s string, i int) (mixing, int) {
	start := i
	for start > max(0, i-maxWord) {
		r, size := utf8.DecodeLastRuneInString(s[:start])
		if !letter(r) {
			break
		}
		start -= size
	}
	all, end := true, start
	latin := false
	for end < min(len(s), i+maxWord) {
		r, size := utf8.DecodeRuneInString(s[end:])
		if !letter(r) {
			break
		}
		end += size
		switch {
		case isLatin(r):
			latin = true
		case r < firstDouble || r >= lastDouble || !doubles[r-firstDouble].both:
			all = false
		}
	}
	_, size := utf8.DecodeRuneInString(s[i:])
	end = max(end, i+size)
	switch {
	case latin:
		return latinMixed, end
	case all:
		return allDoubles, end
	}
	return foreign, end
}

func letter(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r|0x20 >= 'a' && r|0x20 <= 'z'
	case r >= 0x400 && r < 0x482:
		return true
	}
	return unicode.IsLetter(r) || unicode.Is(unicode.Mn, r)
}

func isLatin(r rune) bool {
	return r < 0x250 || r >= 0x1E00 && r < 0x1F00 || r >= 0xFF21 && r <= 0xFF5A || r >= 0x1D400 && r <= 0x1D6A3
}
