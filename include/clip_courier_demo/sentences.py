"""What people of the demo world say: everyday sentences in four languages, built from few words that many share.

Few words, because a word is only ever released when at least five people were heard to say it. A sentence's slots
are filled from SLOTS of its language; `{name}`, `{phone}`, `{email}` and `{address}` mark what identifies the speaker.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrasebook:
    """One language; `digits` are zero to nine as spoken, `signs` how the @ and the dot of an address are said."""

    everyday: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]
    answers: tuple[str, ...]
    identifying: tuple[str, ...]
    digits: tuple[str, ...]
    signs: tuple[str, str]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.splitlines() if line)


def _slots(text: str) -> dict[str, tuple[str, ...]]:
    pairs = (line.split(": ", 1) for line in _lines(text))
    return {name: tuple(fillers.split(" | ")) for name, fillers in pairs}


ENGLISH = Phrasebook(
    everyday=_lines("""
Turn on the light in the {room}, please.
Turn off the light in the {room}.
What is the weather like {day}?
Will it rain {day}?
Set an alarm for {time} in the morning.
Remind me to call {who} {day}.
Please call {who} at {time}.
I will be at the {place} at {time}.
Where is the {place}, please?
How do I get to the {place}?
How much is the {food}?
We need {food} and {food} for {day}.
Put {food} on the shopping list.
Play some music in the {room}.
Play the song again, please.
Stop the music now.
Set a timer for {number} minutes.
The train to the {place} is late {day}.
When does the next train leave?
I would like a table for {number} people.
I would like a coffee with milk, please.
Can you help me, please?
Can you say that again, please?
I do not know the way to the {place}.
My mother will come to the house at {time}.
Send a message to {who}.
Thank you, I will call you {day}.
Is there a good place to eat near the {place}?
The bus will leave in {number} minutes.
Please open the window in the {room}.
Close the door of the {room}, please.
It is very warm in the {room} {day}.
It is cold in the house {day}.
We will be at the house until {time}.
What is on my list for {day}?
Read my new message, please.
How are you {day}?
I am very well, thank you.
We are on the way to the {place}.
Please wait for me at the {place}.
I need a room for {number} people.
The food is very good here.
Do you have {food} with {food}?
Good morning, how can I help you?
The next bus to the {place} is at {time}.
"""),
    slots=_slots("""
room: kitchen | bedroom | office | garden
day: today | tomorrow | tonight | on Monday
time: seven | eight | nine | ten
who: my mother | my brother | my sister | the doctor
place: station | market | school | hotel
food: bread | milk | coffee | rice
number: two | three | four | five | six
"""),
    answers=("Yes.", "No.", "Stop.", "Now."),
    identifying=_lines("""
My name is {name}.
This is {name}, please call me.
You can call me at {phone}.
My number is {phone}.
Please send it to {email}.
The house is at {address}.
"""),
    digits=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    signs=("at", "dot"),
)

GERMAN = Phrasebook(
    everyday=_lines("""
Mach bitte das Licht {room} an.
Mach das Licht {room} aus.
Wie wird das Wetter {day}?
Wird es {day} regnen?
Stell den Wecker auf {time} Uhr.
Erinnere mich {day} an die Arbeit.
Ruf bitte {who} um {time} Uhr an.
Ich bin um {time} Uhr {place}.
Wir sehen uns {day} {place}.
Wie komme ich nach Hause?
Was kostet {food} heute?
Wir brauchen {food} und {food} für {day}.
Setz {food} auf die Liste.
Spiel bitte Musik {room}.
Spiel das Lied noch einmal.
Mach jetzt die Musik aus.
Stell die Uhr auf {number} Minuten.
Der Zug kommt {day} später.
Wann fährt der nächste Zug?
Ich möchte einen Tisch für {number} Leute.
Ich möchte bitte Kaffee mit Milch.
Können Sie mir bitte helfen?
Können Sie das noch einmal sagen?
Ich kenne den Weg nicht.
Meine Mutter kommt um {time} Uhr nach Hause.
Schick {who} eine Nachricht.
Sag bitte, dass ich später komme.
Danke, ich rufe {day} an.
Der Bus fährt in {number} Minuten.
Mach bitte das Fenster {room} auf.
Es ist {day} sehr warm {room}.
Ich habe eine Frage.
Wir sind bis {time} Uhr {place}.
Was steht {day} auf der Liste?
Lies bitte meine Nachricht vor.
Es geht mir sehr gut, danke.
Warten Sie bitte {place} auf mich.
Ich brauche ein Zimmer für {number} Leute.
Das Essen ist hier sehr gut.
Haben Sie {food} mit {food}?
Guten Morgen, wie kann ich Ihnen helfen?
"""),
    slots=_slots("""
room: in der Küche | im Garten | im Büro
day: heute | morgen | am Montag
time: sieben | acht | neun | zehn
who: meine Mutter | meine Schwester | meine Ärztin
place: am Bahnhof | in der Schule | im Hotel
food: Brot | Milch | Kaffee | Reis
number: zwei | drei | vier | fünf | sechs
"""),
    answers=("Ja.", "Nein.", "Jetzt.", "Gut."),
    identifying=_lines("""
Mein Name ist {name}.
Hier ist {name}, rufen Sie mich bitte an.
Meine Nummer ist {phone}.
Rufen Sie mich bitte an, {phone}.
Schicken Sie das bitte an {email}.
Das Haus ist {address}.
"""),
    digits=("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    signs=("at", "Punkt"),
)

FRENCH = Phrasebook(
    everyday=_lines("""
Allume la lumière dans {room}, s'il te plaît.
Éteins la lumière dans {room}.
Quel temps fait-il {day}?
Est-ce qu'il va pleuvoir {day}?
Mets le réveil à {time} heures.
Rappelle-moi d'appeler {who} {day}.
Appelle {who} à {time} heures.
Je serai {place} à {time} heures.
Je ne sais pas aller {place}.
Comment aller {place}?
Combien coûte {food}?
Il faut {food} et {food} pour {day}.
Mets {food} sur la liste.
Mets de la musique dans {room}.
Mets encore la chanson, s'il te plaît.
Arrête la musique maintenant.
Mets le réveil dans {number} minutes.
Le train est en retard {day}.
À quelle heure est le train?
Je voudrais une table pour {number} personnes.
Je voudrais un café avec du lait.
Pouvez-vous m'aider, s'il vous plaît?
Pouvez-vous dire cela encore une fois?
Ma mère arrive à la maison à {time} heures.
Envoie un message à {who}.
Dis à {who} que je suis en retard.
Merci, je vous appelle {day}.
Je vous vois {day} {place}.
Le bus part dans {number} minutes.
Ouvre la fenêtre dans {room}.
Ferme la porte, s'il te plaît.
Il fait très chaud dans {room} {day}.
J'ai une question pour vous.
Nous serons à la maison à {time} heures.
Lis le message, s'il te plaît.
Comment allez-vous {day}?
Je vais très bien, merci.
Je vous attends {place}.
Il faut une table pour {number} personnes.
La table est très bien, merci.
Bonjour, comment allez-vous?
"""),
    slots=_slots("""
room: la cuisine | la chambre | le jardin
day: aujourd'hui | demain | lundi
time: sept | huit | neuf | dix
who: ma mère | mon frère | ma sœur
place: à la gare | au marché | à l'école
food: le pain | le lait | le café | le riz
number: deux | trois | quatre | cinq | six
"""),
    answers=("Oui.", "Non.", "Merci.", "Encore."),
    identifying=_lines("""
Je suis {name}.
Bonjour, ici {name}, merci d'appeler.
Appelez-moi au {phone}.
Le numéro est {phone}.
Envoyez cela à {email}, s'il vous plaît.
La maison est {address}.
"""),
    digits=("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    signs=("arobase", "point"),
)

HINDI = Phrasebook(
    everyday=_lines("""
{room} की बत्ती जला दो।
{room} की बत्ती बंद कर दो।
{day} मौसम कैसा है?
क्या {day} बारिश होगी?
सुबह {time} बजे का अलार्म लगा दो।
{day} {who} को फोन करना है।
{time} बजे {who} को फोन करो।
मैं {time} बजे {place} पर हूँ।
{place} कहाँ है?
मुझे {place} जाना है।
{food} कितने का है?
{day} के लिए {food} और {food} चाहिए।
{food} को सूची में लिख दो।
{room} में गाना चला दो।
यह गाना फिर से चला दो।
अब गाना बंद कर दो।
{number} मिनट का अलार्म लगा दो।
{day} गाड़ी देर से है।
गाड़ी कितने बजे है?
{number} लोगों के लिए कमरा चाहिए।
मुझे दूध और चाय चाहिए।
क्या आप मेरी मदद करेंगे?
यह फिर से कहिए।
मुझे {place} का रास्ता चाहिए।
{who} को संदेश लिख दो।
{who} को कहो कि मुझे देर होगी।
धन्यवाद, मैं {day} फोन करूँगा।
बस {number} मिनट में है।
बस {time} बजे है।
{room} की खिड़की बंद कर दो।
घर का दरवाज़ा बंद कर दो।
{day} घर में बहुत गर्मी है।
मुझे आप से कुछ कहना है।
मैं {time} बजे घर पर हूँ।
{day} की सूची में क्या है?
मेरा संदेश फिर से कहो।
आप कैसे हैं?
मैं ठीक हूँ, धन्यवाद।
{place} पर मेरे लिए रुकिए।
यहाँ चाय बहुत अच्छी है।
क्या {food} और {food} है?
"""),
    slots=_slots("""
room: रसोई | कमरे | घर
day: आज | कल | सोमवार को
time: सात | आठ | नौ | दस
who: मेरी माँ | मेरे भाई | मेरी बहन
place: स्टेशन | बाज़ार | स्कूल
food: चावल | दूध | चाय | रोटी
number: दो | तीन | चार | पाँच | छह
"""),
    answers=("हाँ।", "नहीं।", "ठीक।", "अब।"),
    identifying=_lines("""
मेरा नाम {name} है।
मैं {name} हूँ, मुझे फोन करो।
मेरा नंबर {phone} है।
मुझे {phone} पर फोन करो।
यह {email} पर लिख दो।
मेरा घर {address} पर है।
"""),
    digits=("शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ"),
    signs=("एट", "डॉट"),
)

PHRASEBOOKS = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "hi": HINDI}
