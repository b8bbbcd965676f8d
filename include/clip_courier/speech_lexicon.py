"""Words by which it is told that somebody dictates, spells, gives an address or a name, in the languages of the clips.

All in lower case and composed (NFC), as speech_patterns.py compares them.
"""

import unicodedata
from collections.abc import Mapping
from typing import Final

import regex


def words_of(text: str) -> frozenset[str]:
    """In the form that words are compared in."""
    return frozenset(unicodedata.normalize("NFC", text).split())


# Words that are spoken for digits, and those that join them.
SPOKEN_NUMBERS: Final[Mapping[str, frozenset[str]]] = {
    "en": words_of(
        "zero oh nought naught one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
        " sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand"
        " double triple treble"
    ),
    "de": words_of(
        "null eins zwei zwo drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn"
        " siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert tausend"
        " doppel"
    ),
    "fr": words_of(
        "zéro deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize vingt trente"
        " quarante cinquante soixante septante huitante nonante cent cents mille double triple"
    ),
    "hi": words_of(
        "शून्य ज़ीरो जीरो दो तीन चार पांच पाँच छह छः छे सात आठ नौ दस"
        " ग्यारह बारह तेरह चौदह पंद्रह पन्द्रह सोलह सत्रह अठारह उन्नीस"
        " बीस इक्कीस बाईस तेईस चौबीस पच्चीस छब्बीस सत्ताईस अट्ठाईस उनतीस"
        " तीस इकतीस बत्तीस तैंतीस चौंतीस पैंतीस छत्तीस सैंतीस अड़तीस"
        " उनतालीस चालीस इकतालीस बयालीस तैंतालीस चवालीस पैंतालीस छियालीस"
        " सैंतालीस अड़तालीस उनचास पचास इक्यावन बावन तिरपन चौवन पचपन"
        " छप्पन सत्तावन अट्ठावन उनसठ साठ इकसठ बासठ तिरसठ चौंसठ पैंसठ"
        " छियासठ सड़सठ अड़सठ उनहत्तर सत्तर इकहत्तर बहत्तर तिहत्तर"
        " चौहत्तर पचहत्तर छिहत्तर सतहत्तर अठहत्तर उनासी अस्सी इक्यासी"
        " बयासी तिरासी चौरासी पचासी छियासी सत्तासी अट्ठासी नवासी नब्बे"
        " इक्यानवे बानवे तिरानवे चौरानवे पचानवे छियानवे सत्तानवे"
        " अट्ठानवे निन्यानवे सौ हज़ार हजार डबल"
    ),
}
# Whoever speaks one language dictates a number in another.
ANY_NUMBER: Final = frozenset().union(*SPOKEN_NUMBERS.values())
# Digits that are also articles: they count as digits beside another one.
ARTICLES: Final[Mapping[str, frozenset[str]]] = {
    "de": words_of("ein eine"),
    "fr": words_of("un une"),
    "hi": words_of("एक"),
}
GERMAN_COMPOUND: Final = regex.compile(
    r"(ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun)und\p{L}+ßig|(\p{L}+)und\p{L}+zig|\p{L}+(hundert|tausend)\p{L}*"
)
# What is said between the parts of a number or a code.
FILLERS: Final = words_of(
    "uh um er erm hmm ah like then and dash hyphen minus dot point slash space plus colon underscore comma"
    " äh ähm dann und strich punkt komma euh puis et tiret virgule फिर और"
)
CURRENCIES: Final = words_of(
    "dollar dollars bucks euro euros pound pounds pence cent cents rupee rupees francs franken yen lakh crore percent"
    " रुपये रुपए रुपया लाख करोड़"
) - words_of("percent")
# Behind these a number is somebody's, were it of one digit only.
CODE_CUES: Final = words_of(
    "card account iban ssn passport licence license pin password passcode code zip zipcode postcode extension routing"
    " konto karte kontonummer kartennummer postleitzahl plz reisepass ausweis führerschein passwort kennwort"
    " carte compte passeport permis mot code postal पासपोर्ट खाता कार्ड पिन"
) - words_of("mot")
BIRTH_CUES: Final = words_of(
    "born birthday birthdate birth dob geboren geburtstag geburtsdatum né née naissance anniversaire जन्म जन्मदिन जन्मतिथि"
)
MONTHS: Final = words_of(
    "january february march april may june july august september october november december"
    " januar jänner februar märz mai juni juli oktober dezember"
    " janvier février mars avril juin juillet août septembre octobre novembre décembre"
    " जनवरी फरवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर"
)
ORDINALS: Final = words_of(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth twentieth thirtieth premier"
    " ersten zweiten dritten vierten fünften sechsten siebten achten neunten zehnten zwanzigsten dreißigsten"
)

# One letter that is a word; any other letter that stands alone is being spelled.
LETTER_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "en": words_of("a i"),
    "fr": words_of("a à y ô"),
    "hi": words_of("न व"),
    "es": words_of("a e o u y"),
    "it": words_of("a e è i o"),
    "pt": words_of("a e o à é"),
}
# Names of letters, as recognisers write them, and the alphabets that are used to spell over a bad line.
SPELLING: Final = words_of(
    "bee cee dee ee eff gee aitch haitch jay kay ell em en pee cue ess tee vee ex zed zee ar alpha alfa bravo charlie"
    " delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa quebec romeo sierra"
    " tango uniform victor whiskey xray yankee zulu"
)
# Elsewhere some of them are common words ("en").
SPELLED_SO_IN: Final = words_of("en hi")
# "b as in boy", "b wie berta".
AS_IN: Final = (("as", "in"), ("for",), ("like",), ("wie",), ("comme",))

# How an e-mail or web address is dictated.
AT: Final = words_of("at arobase ät klammeraffe एट ऐट")
DOT: Final = words_of("dot punkt point period डॉट")
DOMAINS: Final = words_of(
    "com net org info biz io co edu gov eu uk us ca de fr ch at be nl it es in me tv app dev example कॉम इन"
)
MAIL_PROVIDERS: Final = words_of(
    "gmail googlemail hotmail yahoo outlook icloud gmx protonmail wanadoo laposte rediffmail aol"
)
WRITTEN_ADDRESS: Final = regex.compile(
    r"\p{L}[\p{L}\p{N}-]*(\.[\p{L}\p{N}-]+)*\.(com|net|org|info|biz|io|co|edu|gov|eu|uk|us|ca|de|fr|ch|at|be|nl|it|es|in|me|tv)"
    r"|(https?|ftp)\p{P}.*|www\..*|\p{L}{4,}(gmail|googlemail|hotmail|yahoo|outlook|icloud|gmx|wanadoo)(com|de|fr|net|couk)"
)

# Kinds of streets. The first are always part of an address; the others are where a number stands before them.
STREETS: Final = words_of(
    "street road avenue boulevard lane crescent parkway straße strasse gasse allee rue chemin impasse quai मार्ग गली"
)
STREETS_COME_FIRST: Final = words_of("rue chemin impasse quai calle via rua strada corso piazza plaza paseo ulica")
# The suffixes of the US Postal Service (Publication 28, C1), and others.
PLACES: Final = words_of(
    "alley annex arcade ave bayou beach bend blvd bluff bottom branch bridge brook brooks burg bypass camp canyon cape"
    " causeway center centre circle circles cliff cliffs close club common commons corner corners course court courts"
    " cove coves creek crest crossing crossroad ct curve dale dam divide dr drive drives estate estates expressway "
    "  fall falls ferry field fields flat flats ford fords forest forge forges fork forks fort"
    " freeway garden gardens gateway glen glens green greens grove groves harbor harbors haven heights highway hill"
    " hills hollow inlet island islands isle junction junctions key keys knoll knolls lake lakes land landing light"
    " lights ln loaf lock locks lodge loop mall manor manors meadow meadows mews mill mills mission motorway mount"
    " mountain mountains neck orchard oval overpass park parks parkways pass passage path pike pine pines place plain"
    " plains plaza point points port ports prairie radial ramp ranch rapid rapids rd rest ridge ridges river roads"
    " route row run shoal shoals shore shores skyway spring springs spur spurs square squares st station stravenue"
    " stream streets summit terrace throughway trace track trafficway trail tunnel turnpike underpass union unions"
    " valley valleys via viaduct view views village villages ville vista walk walks wall way ways well wells yard"
    " calle via rua strada corso piazza paseo ulica utca weg platz ring ufer damm gasse place cours allée नगर कॉलोनी"
)
STREET_ENDING: Final = regex.compile(
    r"\p{L}{3,}(straße|strasse|gasse|allee|platz|weg|ring|ufer|damm|straat|gatan|katu)"
)
# What stands behind the street.
UNITS: Final = words_of(
    "apartment apt apts suite unit flat floor building box bldg room north south east west northeast northwest"
    " wohnung stock postfach appartement étage bâtiment"
)
LIVING_CUES: Final = words_of("live lives lived living address located adresse wohne wohnt anschrift habite पता")

# What somebody says before a name; what follows is masked whatever it is.
NAME_CUES: Final[tuple[tuple[str, ...], ...]] = (
    *(("name", "is"), ("name", "was"), ("name's",), ("names",), ("surname", "is"), ("names", "are")),
    *(("name", "ist"), ("heiße",), ("heißt",)),
    *(("m'appelle",), ("s'appelle",), ("nom", "est"), ("prénom", "est"), ("nom", "c'est")),
    *(("नाम",),),
)
# Behind these a word is masked that is somebody's name, however common the word is.
CALLS: Final = words_of(
    "call tell ask text message dear hi hello hey contact named invite phone ring told met"
    " rufe ruf sag frag hallo grüße appelle appeler bonjour salut dis demande नमस्ते"
)
GREETINGS: Final[tuple[tuple[str, ...], ...]] = (
    *(("dis", "à"), ("demande", "à"), ("ici",), ("c'est",)),
    *(("call", "me"), ("calls", "me"), ("known", "as"), ("goes", "by")),
    *((word,) for word in sorted(CALLS)),
    *(("this", "is"), ("i", "am"), ("i'm",), ("hier", "spricht"), ("hier", "ist"), ("ich", "bin")),
)
# How people are addressed; a name follows. Of the second kind more is said than names: "the doctor told me".
TITLES: Final = words_of(
    "frau herr herrn dr mr mrs ms mister miss madame monsieur mademoiselle mme señor señora signor signora श्री श्रीमती"
)
CALLINGS: Final = words_of(
    "doctor doktor docteur professor prof familie officer detective nurse captain judge uncle aunt"
)
# Inside names.
PARTICLES: Final = words_of(
    "van von der den de la le du del della di da dos bin ibn al el ben mac mc st saint o d zu y"
)

# Words that hold sentences together: none is a name, a street or part of an address that is dictated.
FUNCTION_WORDS: Final = words_of(
    "a an the this that these those and or but nor so if because as than then when while where who whom whose"
    " which what why how i you he she it we they me him her us them my your his its our their mine yours is am are"
    " was were be been being do does did have has had having can could would should shall might must not no yes ok"
    " okay please thanks thank to of in on at by for from with without about into onto over under after before"
    " until since during between up down out off again there here now just also too very only more most much many"
    " some any all both each every i'm i'd i'll i've you're it's that's he's she's we're they're don't doesn't"
    " didn't can't couldn't wasn't isn't what's who's there's let's won't wouldn't aren't they've we've you've"
    " he'll she'll we'll it'll they'll want wants wanted need needs like likes said says say told tell tells went"
    " goes going go come comes came get got know knows see saw make makes made take takes took put find give gave"
    " der die das den dem des ein eine einen einem einer und oder aber wenn weil dass ob wie wo wer was wann warum"
    " ich du er sie es wir ihr mich dich ihn uns euch mir dir ihm ihnen mein meine meinen dein deine sein seine"
    " unser ist sind war waren bin bist habe hat haben hatte wird werden kann können muss soll nicht kein keine ja"
    " nein bitte danke zu von mit bei nach aus für auf in im an am um vor seit unter über bis auch noch schon nur"
    " sehr hier da jetzt heute morgen gestern le la les un une des et ou mais si que qui quoi dont où quand"
    " comment pourquoi je tu il elle on nous vous ils elles me te se lui leur mon ma mes ton ta tes son sa ses"
    " notre votre est sont était suis es a ai as avons avez ont fait ne pas plus non oui merci à de du en dans sur"
    " sous avec sans pour par chez au aux ce cette ces ici là aussi très j'ai c'est s'il n'est qu'il d'accord"
    " plaît aujourd'hui demain hier है हैं था थी थे हूँ हूं हो का की के को से में पर और या लेकिन कि जो यह वह ये वे"
    " मैं तुम आप हम मेरा मेरी मेरे आपका आपकी नहीं हाँ हां कृपया क्या कब कहाँ कौन कैसे ने भी ही तो कर करो बोल रहा"
    " रही रहे कल आज"
)
# Behind "may" and "will" none of these stands: there it is somebody called May or Will.
NO_BARE_VERBS: Final = FUNCTION_WORDS - words_of(
    "be have do go come get know see make take put find give want need not also just now never say tell like again i"
    " you he she it we they"
)
