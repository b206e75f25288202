"""Snippets of Jinja that make_jinja_cases.py renders: one a line, grouped by what they are about."""

VARIABLES = {
    "s": "Hello World",
    "e": "a\U0001f600b\U0001f469\u200d\U0001f4bbé",
    "ws": "\u00a0 \t x y \n\x1c\x85",
    "bom": "\ufeffx\ufeff",
    "multi": "one\ntwo\r\n\n  three\n",
    "code": "    return x + 1\n\n\tend",
    "n": 7,
    "neg": -7,
    "f": 20.0,
    "g": 0.1,
    "h": 2.5,
    "big": 1234567890123456789,
    "huge": 123456789012345678901234567890,
    "tiny": 1e-07,
    "e16": 1e16,
    "negzero": -0.0,
    "yes": True,
    "no": False,
    "nil": None,
    "l": [3, 1, 2],
    "words": ["pear", "Apple", "fig", "apple"],
    "empty": "",
    "el": [],
    "ed": {},
    "d": {"b": 1, "a": [1, 2.0, None, True], "10": "x", "2": "y", "é": "\U0001f600\"'\n"},
    "rows": [
        {"name": "b", "age": 3, "tags": ["x"], "in": {"er": 1}},
        {"name": "A", "age": 1.5, "tags": [], "in": {"er": 2}},
        {"name": "c", "age": 3, "tags": ["y", "z"]},
    ],
    "messages": [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.0, "y": None}}}]},
        {"role": "tool", "content": "<ok>"},
        {"role": "assistant", "content": "<think>\nhmm\n</think>\n\n  Done"},
    ],
    "odd": {"items": "own", "get": 1, "update": 2, "keys": [1], "length": 3, "__class__": 4, "_x": 5, "weird key": 6},
}

EXPRESSIONS = r"""
# how values print
f
g
h
big
huge
tiny
e16
negzero
yes
no
nil
l
d
ed
el
e
(1, 'a')
(1,)
()
[none, true, 1.5, 'x', "it's", '"', 'both\'"']
{'now': true, 'x': none, 1: 2, none: 3}
[[], {}, (), '']
[e, ws, bom]
'\x00\x7f\xad\u2028\ue000'
['\x00\x7f\xad\u2028\ue000\t\r\n\\']
missing
[missing]
1e5
1.0e22
1e15 + 0.3
123456789.125
0.1 + 0.2
1/3
100/10
5e-324
1.7976931348623157e308
-1e-5
0.0001
0.00001
1e100
10 ** 15
10.0 ** 15
10.0 ** 16
true + true
1_000
0x1F + 0b11 + 0o17
range(3)
range(1, 10, 3)
d.keys()
d.values() | list
d.items() | list
{'a': 1}.items()
namespace(a=1, b='x')
# arithmetic
-7 % 3
7 % -3
-7 // 2
7 // -2
-7.5 % 2
7.5 // -2
7 // 2.0
-7 / 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
(-8) ** 2
big + 1
big * big
big // 7
big % 1000
-big // 7
-big % 1000
9007199254740993 + 0
9007199254740992 + 1
2 ** 64
2 ** 64 - 1
2 ** 0.5
big == 1234567890123456789
big == 1234567890123456788
big > 1e18
1 == 1.0
1 == true
0 == false
1 / 0
1 // 0
1 % 0
1.0 / 0
'a' + 1
1 + 'a'
'a' + none
none + 'a'
'a' + ['b']
'a' + d
'a' ~ d
'a' ~ none ~ true ~ 1.0 ~ ['x']
'ab' * 3
3 * 'ab'
'ab' * -1
'ab' * 1.5
[1, 2] * 2
[1] + [2, 'x']
(1,) + (2,)
[1] + (2,)
l + l
+true
-true
-none
+'a'
not 1
not ''
-missing
1 - 0.9
3.0 * 1
1e308 * 10
7 - 7.0
-0.0 + 0
0 * -1
0 * -1.0
# comparison and logic
[] == []
{'a': 1} == {'a': 1}
{'a': 1, 'b': [1]} == {'b': [1], 'a': 1.0}
l == [3, 1, 2]
(1, 2) == [1, 2]
messages[1] == {'role': 'user', 'content': 'Hi'}
messages[0] == messages[0]
none == none
none == false
missing == none
missing == missing2
missing is none
'a' < 'b'
'B' < 'a'
'\uffff' < '😀'
'a' < 1
[1, 2] < [1, 3]
[1, 2] < [1]
(1, 'a') <= (1, 'b')
none < 1
1 < 2 < 3
1 < 3 < 2
1 < 2 == true
'a' in 'cat'
'' in 'cat'
1 in [1.0]
true in [1]
'b' in d
'zz' in d
1 in d
'x' not in 'abc'
1 in 'abc'
none in [none]
missing in l
missing in 'abc'
'a' in missing
[1] in [[1], [2]]
1 in 5
1 in none
1 and 2
0 and 2
0 or ''
'' or none
none or [] or {}
1 if true else 2
1 if false
(1 if false) is undefined
'x' if missing else 'y'
'x' if 0.0 else 'y'
'x' if el else 'y'
'x' if range(0) else 'y'
'a' if no else 'b' if yes else 'c'
not yes == no
not (1 in l)
yes and not no
# strings, indexes, slices
e | length
e[1]
e[-1]
e[1:3]
e[::-1]
e[::2]
s[0]
s[-1]
s[100]
s[100] is undefined
s[2:5]
s[:-3]
s[-3:]
s[::-1]
s[8:2:-2]
s[::0]
s['a':]
l[0]
l[-1]
l[5]
l[5] is undefined
l[1:]
l[::-1]
l[:-1]
l['0']
l[1.0]
l[true]
l.0
d.b
d['10']
d[10]
d.a[1]
d.a.1
d.zzz
d.zzz.y
d['zzz']['y']
missing.x
missing['x']
messages[5]
messages[5].role
messages[0].role
messages[0]['role']
messages[-1].content.split('</think>')[-1]
messages[2].content
messages[2].content.x
messages[2].tool_calls[0].function.arguments.y
(1, 2, 3)[1:]
range(10)[3]
range(10)[-1]
none.x
none['x']
(5).x
n.x
s.x
s.upper
odd.items
odd['items']
odd.get
odd['get']
odd.update
odd['update']
odd.keys
odd.length
odd['__class__']
odd.__class__
odd._x
odd['weird key']
odd.items()
''.__class__
''.__class__.__mro__
''['__class__']
l.append
l.append(4)
d.update({'x': 1})
d.pop('b')
d.get('b')
d.get('zz')
d.get('zz', 5)
d.get('a', 5)[3]
d.get(default=1, key='b')
d.get()
d.copy() == d
l.index(2)
l.index(9)
l.count(1)
messages | length
5 | length
none | length
missing | length
# methods of str
s.upper() ~ s.lower() ~ s.title() ~ s.capitalize()
'ß straße'.upper()
'they\'re bill\'s'.title()
'they\'re bill\'s' | title
'ﬁ ß'.title()
'ΑΣ'.lower()
'ა'.capitalize()
'HELLO wORLD'.capitalize()
'xxabxx'.strip('x')
'xxabxx'.lstrip('x')
'xxabxx'.rstrip('x')
'abcba'.strip('ab')
'😀a😀'.strip('😀')
code.lstrip('\n')
code.strip('\n')
'\n\n  a\n'.strip('\n')
'\n\n  a\n'.lstrip('\n') ~ '|'
ws.strip() ~ '|'
[ws.strip(), ws.lstrip(), ws.rstrip()]
[bom.strip(), bom | trim]
['\x1c\x1d\x1e\x1f\x85\xa0a\u3000\u200b'.strip()]
'a'.strip(none)
'a'.strip(1)
' a b  c '.split()
' a b  c '.split(' ')
'a,b,,c'.split(',')
'a,b,,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a b  c '.split(none, 1)
' a b  c '.rsplit(none, 1)
'a b'.split(sep=' ')
'a b c'.split(maxsplit=1)
'abc'.split('')
''.split()
''.split(',')
'a<sep>b'.split('<sep>')
'ab'.split(1)
multi.splitlines()
multi.splitlines(true)
'a\x0bb\x0cc\x1cd\u2028e\x85f'.splitlines()
'abc'.startswith('ab')
'abc'.startswith(('x', 'a'))
'abc'.startswith('b', 1)
'abc'.endswith(('c', 'd'))
'abc'.endswith('b', 0, 2)
'abc'.startswith(['a'])
'abc'.startswith(1)
'abcabc'.find('c')
'abcabc'.find('c', 3)
'abcabc'.rfind('c')
'abc'.find('z')
e.find('b')
'abc'.index('c')
'abc'.index('z')
'abcabc'.count('bc')
'aaa'.count('aa')
'abc'.count('')
'abc'.replace('b', 'x')
'aaa'.replace('a', 'b', 2)
'aaa'.replace('a', 'b', -1)
'abc'.replace('', '-')
'abc'.replace('', '-', 2)
'😀b'.replace('', '-')
'a$b'.replace('$', '$$&')
'abc'.replace('b')
'abc'.replace('b', none)
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'abc'.removeprefix('ab')
'abc'.removesuffix('bc')
'abc'.removesuffix('')
','.join(['a', 'b'])
','.join('abc')
','.join([1])
','.join(d)
''.join(words)
'a'.center(6) ~ '|'
'ab'.center(5, '*')
'abc'.center(6, '*')
'a'.ljust(3, '.') ~ 'a'.rjust(3)
'-42'.zfill(5)
'42'.zfill(1)
'a\tb'.expandtabs(4)
'ab\t\tc'.expandtabs()
'abc'.isalpha() ~ '12'.isdigit() ~ 'a1'.isalnum() ~ ' '.isspace()
''.isalpha() ~ '²'.isdigit() ~ '²'.isdecimal() ~ '½'.isdigit()
'abc'.islower() ~ 'ABC'.isupper() ~ 'Ab'.istitle() ~ '1'.isupper()
'aé'.isascii() ~ ''.isascii()
s.nothing()
s.strip(1, 2)
s.upper(1)
s.split(x=1)
'{} and {}'.format(1, 'b')
'{1}{0}'.format('a', 'b')
'{x}-{y!r}'.format(x=1.0, y='q')
'{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c')
'{:05d} {:,} {:.2f} {:x}'.format(42, 1234567, 3.14159, 255)
'{{}}{}'.format(1)
'{}'.format()
'{.x}'.format(d)
'%s and %s' % ('a', 1)
'%s' % 'a'
'%s' % ['a']
'%s' % d
'%d %05d %+d %x %X' % (5, 42, 7, 255, 255)
'%.2f %5.1f|%-6.2f|%06.2f' % (3.14159, 2.5, 1.005, 1.5)
'%s%%' % 5
'%r' % 'a'
'%(x)s and %(y)d' % {'x': 1, 'y': 2}
'%s' % ()
'%s %s' % ('a',)
'%s' % (1, 2)
'%d' % 'a'
'%d' % 3.7
'%5s|%-5s|' % ('a', 'b')
'%.2s' % 'abc'
'%.0f %.0f %.0f' % (0.5, 1.5, 2.5)
'%.1f' % 0.25
'%e' % 12345.678
'%s' % none
'%s' % true
'%s' % 20.0
'%c' % 'a'
'a' 'b' "c"
'a\tb\\n\'q\''
'\d\q\u00e9\x41\101\N'
"tab\there" | length
# filters
'  a  ' | trim ~ '|'
'xxaxx' | trim('x')
none | trim
missing | trim
5 | trim
missing | upper
none | upper
5.0 | upper
'a' | default('b')
none | default('b')
missing | default('b')
missing | default
'' | default('b')
'' | default('b', true)
none | default('b', boolean=true)
missing.x | default('b')
0 | d('z', true)
d.zzz | default({}) | length
l | join
l | join(', ')
words | join('-') | upper
[1, none, 2.0, true, missing] | join(',')
rows | join(', ', attribute='name')
'abc' | join('.')
d | join(',')
none | join
l | join(1)
l | first
l | last
el | first
el | first is undefined
el | last
'abc' | first
'abc' | last
d | first
missing | first
none | first
l | sort
l | sort(reverse=true)
words | sort
words | sort(case_sensitive=true)
words | sort(true)
rows | sort(attribute='age') | map(attribute='name') | list
rows | sort(attribute='age,name') | map(attribute='name') | join
[1, 'a'] | sort
[none] | sort
[[2, 1], [1, 5]] | sort
d | sort
l | reverse | list
'abc' | reverse
l | reverse
e | reverse
l | sum
[0.1, 0.2] | sum
rows | sum(attribute='age')
el | sum
['a'] | sum
l | sum(start=10)
l | min ~ l | max
words | min
words | max(case_sensitive=true)
el | max
rows | max(attribute='age')
rows | map(attribute='name') | list
rows | map(attribute='in.er') | list
rows | map(attribute='in.er', default='-') | list
rows | map(attribute='tags.0', default='-') | list
rows | map(attribute='zzz') | list
words | map('upper') | list
words | map('replace', 'p', 'q') | join(' ')
l | map('string') | join('+')
l | map('zzz') | list
l | map
words | map('length') | sum
rows | selectattr('tags') | map(attribute='name') | list
rows | selectattr('age', 'equalto', 3) | list | length
rows | selectattr('age', '>', 2) | map(attribute='name') | join
rows | selectattr('name', 'in', ['A', 'c']) | map(attribute='name') | join
rows | rejectattr('age', 'eq', 3) | map(attribute='name') | join
rows | selectattr('in', 'defined') | list | length
rows | rejectattr('in') | list | length
messages | selectattr('role', 'equalto', 'user') | list | length
(messages | selectattr('role', 'equalto', 'system') | first).content
messages | selectattr('role', 'equalto', 'nobody') | first is defined
messages | rejectattr('role', 'equalto', 'system') | list | length
messages | selectattr('role', 'equalto', 'user') | length
messages | selectattr('role', 'equalto', 'user')
l | select('odd') | list
l | reject('odd') | list
[0, 1, '', none, 'a'] | select | list
[0, 1, '', none, 'a'] | reject | list
words | unique | list
words | unique(case_sensitive=true) | list
[1, 1.0, true, 2, '1'] | unique | list
[[1], [1]] | unique | list
rows | unique(attribute='age') | map(attribute='name') | list
rows | groupby('age') | list | length
rows | groupby('age') | map(attribute='grouper') | list
rows | groupby('age') | map('last') | map('length') | list
rows | groupby('age') | first
'3.7' | int
'42' | int
' 42 ' | int
'4_2' | int
'x' | int
'x' | int(-1)
none | int
3.99 | int
-3.99 | int
true | int
'0x1f' | int
'1e3' | int
'nan' | int
'123456789012345678901' | int
missing | int
'3.7' | float
'x' | float
'x' | float(1.5)
3 | float
'1e3' | float
' inf ' | float
'-nan' | float
none | float
big | float
3.7 | round
2.5 | round
3.5 | round
-2.5 | round
2.675 | round(2)
1.005 | round(2)
0.125 | round(2)
5 | round
5 | round(1)
3.14159 | round(3)
3.1 | round(method='ceil')
3.9 | round(0, 'floor')
3.14159 | round(2, 'ceil')
3 | round(1, 'floor')
'a' | round
-5 | abs
-5.5 | abs
true | abs
'a' | abs
5 | string
none | string
d | string
[1, 'a'] | string | length
missing | string
l | string | replace('1', 'x')
5 | list
'abc' | list
d | list
none | list
missing | list
(1, 2) | list
d | items | list
d | items | first
ed | items | list
missing | items | list
none | items | list
l | items | list
d | dictsort
d | dictsort(reverse=true) | first
{'b': 1, 'A': 2} | dictsort
{'b': 1, 'A': 2} | dictsort(true)
{'b': 1, 'A': 2} | dictsort(by='value')
l | dictsort
'hello world' | capitalize
'HELLO' | lower
'a b-c (d {e [f <g' | title
'aXb' | replace('X', 'Y')
'aaa' | replace('a', 'b', 2)
5 | replace(5, 6)
none | replace('N', 'x')
'abc' | replace('', '-')
multi | indent
multi | indent(2, true)
multi | indent(2, blank=true)
multi | indent('> ', first=true, blank=true)
'a' | indent
'' | indent ~ '|'
5 | indent
none | indent
'a b c' | wordcount
e | wordcount
'a_b c-d' | wordcount
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(9, true)
'foo bar baz qux' | truncate(9, false, '..', 0)
'foo' | truncate(3)
'a' | center(5) ~ '|'
l | batch(2) | list
l | batch(2, 'x') | list
l | slice(2) | list
l | slice(2, 'x') | list
[1,2,3,4,5,6,7] | slice(3) | map('length') | list
'%s-%s' | format('a', 1)
'%(x)s' | format(x=1)
'%s' | format
'a&b=c/d é😀~' | urlencode
{'a b': 1, 'c': 'd/e'} | urlencode
[('x', 'y z')] | urlencode
'<a href="x">\'&' | e
('<' | e) ~ '<'
'<b>' | safe
'<b>' | escape | escape
'<b>' | safe | string | length
'<b>' | forceescape
rows[0] | attr('name')
'a' | attr('upper') is defined
'x' | upper | lower | trim | length
l | length == 3
l | zzz
'a' | upper()
'a' | upper(1)
'a' | join(zzz=1)
'a' | tojson | length
# tojson
d | tojson
rows | tojson
messages | tojson
messages[2].tool_calls[0].function.arguments | tojson
f | tojson
tiny | tojson
e16 | tojson
negzero | tojson
big | tojson
huge | tojson
1e22 | tojson
1.5e-10 | tojson
yes | tojson
nil | tojson
s | tojson
e | tojson
'\u2028</script>&\'"\\/\x00\x1f\x7f\b\f\n\r\t' | tojson
d | tojson(indent=2)
d | tojson(indent=4)
ed | tojson(indent=2)
el | tojson(indent=2)
[[], {}, [1]] | tojson(indent=1)
d | tojson(indent=0)
d | tojson(ensure_ascii=true)
e | tojson(true)
d | tojson(separators=(',', ':'))
d | tojson(separators=[', ', ': '], sort_keys=true)
d | tojson(indent='\t')
(1, 2) | tojson
{1: 2, none: 3, 'a': 4} | tojson
missing | tojson
[missing] | tojson
range(3) | tojson
d.items() | tojson
l | map('string') | tojson
('<' | safe) | tojson
'nan' | float | tojson
-('inf' | float) | tojson
d | tojson | safe
[1.0, 2.50, 1e3] | tojson
# tests
1 is odd
2 is even
9 is divisibleby 3
9 is divisibleby(2)
1.0 is odd
'a' is odd
missing is defined
s is defined
d.zz is defined
d.zz is undefined
missing is not defined
none is none
none is not none
0 is none
'a' is string
5 is string
5 is number
5.0 is number
true is number
'5' is number
5 is integer
5.0 is integer
true is integer
5.0 is float
5 is float
true is boolean
1 is boolean
true is true
1 is true
false is false
d is mapping
l is mapping
none is mapping
l is sequence
'a' is sequence
d is sequence
5 is sequence
missing is sequence
range(2) is sequence
d.items() is sequence
l is iterable
5 is iterable
missing is iterable
none is iterable
'a' is iterable
(l | map('string')) is iterable
s.upper is callable
s is callable
range is callable
'abc' is lower
'ABC' is upper
'a1' is lower
5 is lower
3 is in l
'a' is in 'abc'
3 is eq 3
3 is gt 2
3 is lessthan 2
3 is ge(3)
3 is sameas 4
true is sameas true
none is sameas none
l is sameas l
'x' is escaped
('x' | e) is escaped
'upper' is filter
'zzz' is filter
'odd' is test
s is zzz
s is string and n is number
s is not string or n is number
not s is string
n is odd is true
# found by random templates
n[1:]
f[::-1]
nil[:2]
d[:2]
missing[1:]
(l | map('string'))[:2]
('<b>' | e)[0]
('<b>' | e) | list
('<b>' | e) < 'a'
missing is callable
words | rejectattr('age', 'callable') | list
d.items() | unique | list
[(1, 'a'), (1.0, 'a'), ('1', 'a')] | unique | list
s % range(4)
s % missing
s % l
s % 1
l | truncate
missing | truncate
l | sort(none)
l | sort(1)
s.splitlines(none)
l | indent
l | batch(2, 'x') | list
l | slice(2, 'x') | list
l
# calls and globals
range(5) | list
range(5, 1, -2) | list
range(0) | list
range(3, 1) | list
range('a')
range(1.0)
range()
range(200000)
range(0, 5, 0)
range(5) | last
3 in range(5)
range(5) | sum
range(3) == range(0, 3)
range(3) == [0, 1, 2]
dict(a=1, b=2)
dict({'a': 1}, b=2)
dict([('a', 1)])
dict(d) == d
raise_exception('no')
missing()
5()
s()
'a'()
joiner
zzz.yyy()
*l
[*l]
[1, 2,]
(1, 2,)
{'a': 1,}
[x for x in l]
lambda
1 +
(1
'a
l[
{1}
{'a' 1}
a b
1 2
s.
s..x
5 is
x = 1
true.x
not
in l
{'a': 1}['a']
{'a': {'b': 2}}.a.b
{[1]: 2}
[1, 2][0]
'abc'[1]
(s, n)[0]
{}['a'] is defined
(d['a'] | length) + 1
s|upper|lower
s | upper if yes else s | lower
n if n > 5 else 0
(n > 5) | string
'yes' if n is odd and n > 5 else 'no'
-n | abs
-5 | abs
(-5) | abs
- 5 | string
n - 1 ~ 'x'
1 ~ 2 + 3
1 + 2 ~ 3
2 * 3 ~ 4
'a' ~ 'b' * 2
'a' if 'a' in s | lower else 'b'
not none is none
1 == 1 == 1
'a' 'b' ~ 'c'
strftime_now is defined
""".strip("\n").split("\n")

BLOCKS = [
    # loops
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}",
    "{% for x in [none, 1] %}{{ loop.previtem }}|{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}",
    "{% for x in missing %}a{% else %}none{% endfor %}",
    "{% for x in none %}a{% endfor %}",
    "{% for x in 5 %}a{% endfor %}",
    "{% for c in e %}[{{ c }}]{% endfor %}",
    "{% for k in d %}{{ k }},{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }};{% endfor %}",
    "{% for (a, b) in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [1, 2] %}{{ a }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
    "{% for x in l if x > 5 %}a{% else %}none{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }}{{ loop.index }} {% endfor %}{{ loop.index }}{% endfor %}",
    "{% break %}",
    "{% if true %}{% continue %}{% endif %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is sequence %}<{{ loop(x) }}>{% else %}{{ x }}:{{ loop.depth }}{{ loop.depth0 }}{% endif %}{% endfor %}",
    "{% for x in l %}{{ loop(l) }}{% endfor %}",
    "{{ loop }}",
    "{{ loop.index }}",
    "{% for x in l %}{% set y = x %}{% endfor %}{{ y }}",
    "{% set y = 0 %}{% for x in l %}{% set y = y + x %}{{ y }}{% endfor %}{{ y }}",
    "{% set ns = namespace(y=0) %}{% for x in l %}{% set ns.y = ns.y + x %}{% endfor %}{{ ns.y }}",
    "{% for x in l %}{{ y }}{% set y = x %}{{ y }}{% endfor %}",
    "{% for x in l %}{% if loop.first %}{% set y = 1 %}{% endif %}{{ y }}|{% endfor %}",
    "{% for x in l %}{% endfor %}{{ x }}",
    "{% set x = 5 %}{% for x in l %}{{ x }}{% endfor %}{{ x }}",
    "{% for l in l %}{{ l }}{% endfor %}{{ l }}",
    "{% for x in l %}{% for y in [1] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in l | sort %}{{ x }}{% endfor %}",
    "{% for x in l | reverse %}{{ x }}{% endfor %}",
    "{% for x in l[::-1] %}{{ x }}{{ loop.index }}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}",
    "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for x in l if loop.index %}{{ x }}{% endfor %}",
    "{% set g = l | map('string') %}{% for x in g %}{{ x }}{% endfor %}-{% for x in g %}{{ x }}{% else %}used up{% endfor %}",
    "{% set g = l | select('odd') %}{{ g | first }}{{ g | list }}",
    "{% set g = rows | selectattr('age') %}{{ 'yes' if g else 'no' }}",
    "{% for m in messages %}{% if m.role == 'user' %}U{{ m.content }}{% elif m.role == 'assistant' %}A{{ m.content }}{% else %}?{% endif %}{% endfor %}",
    "{%- for m in messages[1:] %}\n{{ m.role }}\n{%- endfor %}",
    # set
    "{% set x = 1 %}{{ x }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x, y = [1] %}{{ x }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x | length }}{{ x }}",
    "{% set x | upper %}ab{% endset %}{{ x }}",
    "{% set x | trim | replace('a', 'b') %} aa {% endset %}{{ x }}|",
    "{% set x.y = 1 %}",
    "{% set d.y = 1 %}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b = ns.a + 1 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns.c is defined }}{{ ns['a'] }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace(x=none) %}{{ ns.x }}{{ ns.x is none }}",
    "{% set ns = namespace(l=[]) %}{% set ns.l = ns.l + [1] %}{{ ns.l }}{{ ns }}",
    "{% set _ = l.append(9) %}{{ l }}",
    "{% set true = 1 %}",
    "{% set x = missing %}{{ x is defined }}{{ x }}",
    "{% set x = x %}{{ x is defined }}",
    "{% if yes %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% if no %}{% set s = 1 %}{% endif %}{{ s }}",
    "{% if no %}{% set x = 1 %}{% endif %}{{ x }}{{ x is defined }}",
    "{% set s = s ~ '!' %}{{ s }}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    # if
    "{% if l %}a{% endif %}{% if el %}b{% endif %}{% if none %}c{% endif %}{% if 0.0 %}d{% endif %}{% if ' ' %}e{% endif %}",
    "{% if missing %}a{% elif missing.x is defined %}b{% else %}c{% endif %}",
    "{% if n == 7 and s == 'Hello World' %}ok{% endif %}",
    "{% if no %}{{ 1 | zzz }}{% endif %}ok",
    "{% if yes %}{{ 1 | zzz }}{% endif %}ok",
    "{{ 1 | zzz if no else 'ok' }}",
    "{{ 1 | zzz }}",
    "{% if no %}{% for x in l %}{{ x | zzz }}{% endfor %}{% endif %}",
    "{% if 'a' is zzz %}{% endif %}",
    "{% if %}{% endif %}",
    "{% if yes: %}a{% endif %}",
    "{% if yes %}a",
    "{% endif %}",
    "{% else %}",
    "{% zzz %}",
    "{% if yes %}{% endfor %}",
    "{% for x in l %}{% endif %}",
    "{% if not messages[0].zzz %}x{% endif %}",
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{{ system }}{{ messages | length }}",
    # macros
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=5) }}{{ m(b=1, a=none) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}",
    "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}",
    "{% set x = 0 %}{% macro m() %}{{ x }}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{% endfor %}{{ m() }}",
    "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}  a  {% endmacro %}{{ m() | trim }}|{{ m() | length }}",
    "{% macro m() %}{{ caller() }}!{% endmacro %}{% call m() %}hi{% endcall %}",
    "{% macro m(l) %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) m(l) %}<{{ x }}>{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}hi{% endcall %}",
    "{% call s.upper() %}hi{% endcall %}",
    "{% call s %}hi{% endcall %}",
    "{% macro m(a) %}{% endmacro %}{{ m.name }}{{ m.arguments }}",
    "{% macro m(a, b) %}{{ a }}{{ b is defined }}{% endmacro %}{{ m(*[1]) }}{{ m(**{'a': 2, 'b': 3}) }}{{ m(*[1, 2]) }}",
    "{{ m() }}{% macro m() %}a{% endmacro %}",
    "{% macro m(a, a2=1, b) %}{% endmacro %}",
    "{% macro dump(v, depth=0) %}{% if v is mapping %}{ {%- for k, x in v.items() %}{{ k }}:{{ dump(x, depth + 1) }}{% if not loop.last %},{% endif %}{% endfor %} }{% elif v is string %}\"{{ v }}\"{% else %}{{ v }}{% endif %}{% endmacro %}{{ dump({'a': {'b': 1.0, 'c': 'x'}, 'd': none}) }}",
    # filter, raw, generation, comments
    "{% filter upper %}a{{ s }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% filter indent(2) %}a\nb\n{% endfilter %}",
    "{% raw %}{{ x }}{% if %}{% endraw %}",
    "a {%- raw -%} {{ x }} {%- endraw -%} b",
    "{% raw %}\n{{ x }}\n{% endraw %}\nz",
    "{% raw %}",
    "a{# comment {{ x }} #}b",
    "a {#- c -#} b",
    "a\n{# c #}\nb",
    "a\n  {# c #}  \nb",
    "{# a",
    "{#-#}x",
    "a{#",
    "{% generation %}a{{ n }}{% endgeneration %}b",
    "{% for m in messages %}{% generation %}{{ loop.index }}{% set z = 1 %}{{ z }}{% endgeneration %}{{ z }}{% endfor %}",
    "{% generation %}{% for x in l %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}{% endgeneration %}",
    "{% print n, s %}",
    # white space
    "a\n{% if yes %}\nb\n{% endif %}\nc",
    "a\n  {% if yes %}\n  b\n  {% endif %}\nc",
    "a\n  {%+ if yes %}\n  b\n  {%+ endif %}\nc",
    "a\n  {% if yes +%}\n  b\n  {% endif +%}\nc",
    "a\n  {%- if yes -%}\n  b\n  {%- endif -%}\nc",
    "a  {{- n -}}  b",
    "a\n  {{ n }}\n  b",
    "a\n\n  {{- n -}} \n\n b",
    "a {{ n }}\n{{ n }} \n",
    "a\n",
    "a\n\n",
    "\n\na",
    "{% if yes %}\n\n\na{% endif %}",
    "a\r\n{% if yes %}\r\nb\r\n{% endif %}\r\nc\rd",
    "\t{% if yes %} x {% endif %}\t\n y",
    "x {% if yes %} x {% endif %}",
    "  {% if yes %}x{% endif %}  {% if yes %}y{% endif %}",
    "\u00a0{% if yes %}x{% endif %}",
    "a \u00a0\x1c{%- if yes %}x{% endif -%}\u3000\x85 b",
    "{{ '\n' }}{% if yes %}\n{% endif %}",
    "{{ 'a' }}\n{{ 'b' }}",
    "{{ s\n}}\n\n{{\n n }}",
    "{%- set x = 1 -%}\n\n a",
    "{%- for x in l -%}\n {{ x }}\n{%- endfor -%}\n!",
    "{% for x in l %}\n{{ x }}\n{% endfor %}\n!",
    "{% for x in l %}{{ x }}\n{% endfor %}!",
    "a{% set x = 1 %}\n\nb",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ '}}' }}{{ \"%}\" }}{% if '%}' %}x{% endif %}",
    "{ {{ n }} } {n} {%%} ",
    "{{ n }",
    "{{ n",
    "{% if yes }x{% endif %}",
    "{{ }}",
    "{{ n }} }} %} #}",
    "{{- '' -}}   x",
    "x\n  {{- '\n' }}  y",
    "<|im_start|>{{ 'user' + '\n' + 'x' + '<|im_end|>' + '\n' }}",
    "{{ '<s>' + '[INST] ' + messages[1]['content'] | trim + ' [/INST]' }}",
    "{{ messages[0]['content'] | trim + '|' }}",
    "{{ bos_token + 'a' }}",
    "{{ bos_token }}a",
    "{%- if tools is defined and tools %}t{% endif %}{{ tools is not none }}{{ tools is defined }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% block a %}x{% endblock %}",
    "{% do l %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{{ joiner() }}",
    "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}",
    "{{ raise_exception('stop ' ~ n) }}",
    "{% if no %}{{ raise_exception('no') }}{% endif %}ok",
    # as templates do it
    "{%- set content = messages[-1].content %}{%- if '</think>' in content %}{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}[{{ reasoning }}][{{ content }}]",
    "{%- for message in messages[::-1] %}{%- set index = (messages | length - 1) - loop.index0 %}{{ index }}{{ message.role[0] }} {% endfor %}",
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}{%- if ns.multi_step_tool and message.role == 'user' and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}{{ ns.last_query_index }}{{ ns.multi_step_tool }}",
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}x{% else %}y{% endif %}{% endfor %}",
    "{%- for tc in messages[2].tool_calls %}{{ '{\"name\": \"' + tc.function.name + '\", \"arguments\": ' }}{{ tc.function.arguments if tc.function.arguments is string else tc.function.arguments | tojson }}{{ '}' }}{%- endfor %}",
    "{%- for tc in messages[2].tool_calls %}{{ '```json' + '\\n' + tc['function']['arguments'] + '\\n' + '```' }}{%- endfor %}",
    "{%- for k, v in messages[2].tool_calls[0].function.arguments | items %}<parameter={{ k }}>\n{{ v | tojson | safe if v is mapping or (v is sequence and v is not string) else v | string }}\n</parameter>\n{%- endfor %}",
    "{{ messages[2].content | trim }}",
    "{{ messages[2].content + 'x' }}",
    "{{ messages[2]['content'] is none }}{{ messages[2].content is string }}{{ messages[1].tool_calls }}{{ 'tool_calls' in messages[2] }}",
    "{{ (messages | map(attribute='role') | list) }}",
    "{{ messages | map(attribute='content') | select('string') | map('trim') | join('|') }}",
    "{{ (rows | map(attribute='name') | join(', ')) ~ '.' }}",
    "{{ '<' ~ messages[1].role ~ '>' ~ messages[1].content ~ 1 ~ 2.0 ~ none ~ [1] }}",
    "{{ rows[0].items() | list | length }}{% for k, v in rows[0].items() %}{{ k }}:{{ v }} {% endfor %}",
    "{{ d | length }}{{ d.keys() | list | length }}{{ d.values() | list | last }}",
    "{% set parts = s.split(' ') %}{{ parts[0] }}{{ parts | last }}{{ parts[-1][0] }}",
    "{% set t = {'string': 'str', 'number': 'float'} %}{{ t['string'] }}{{ t.get('zz', 'any') }}{{ t[missing] }}",
    "{% set x = dict(messages[1], content='new') %}{{ x }}",
    "{% set x = {'role': 'user'} %}{% set y = dict(x, **{'content': 'z'}) %}{{ y.content }}",
    "{{ '%02d' % n }}{{ '{:>3}'.format(n) }}",
]

SNIPPETS = ["{{ " + line + " }}" for line in EXPRESSIONS if line and not line.startswith("# ")] + BLOCKS
