"""What the labelled set is made from: templates, harmless sentences and names, each in two halves."""

from collections.abc import Mapping
from typing import Final


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


TEMPLATES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "en": {
        "tuning": _lines("""
            My name is {person} and I would like to move my appointment.
            Please call {person} on {phone} before noon.
            {first} told me that {first} is coming too.
            Can you send the parcel to {address}?
            I used to live at {street} but now it's {address}.
            The card that was declined is {card}.
            It's {person}, and the card number is {card}, thanks.
            Write to me at {email} or call {phone}.
            My email address is {email}.
            Please wire it to {iban} by Friday.
            Her social security number is {ssn}.
            Somebody logged in from {ip} last night.
            My driver's license is {licence}.
            Passport number {passport}, issued to {person}.
            I was born on {birthday} in {city}.
            Ask Mrs. {last} whether {first} is at school.
            We had dinner with {person} and {person} at the station.
            {person} has never been to {city}.
            Is Doctor {last} free tomorrow?
            The site is called {url} I think.
            Take me to {street}, please.
            Directions to {address}, avoid the motorway.
            Text {first} that I am late.
            Tell {first} the money went to {iban}.
            Why did {person} leave the meeting so early?
            This is {person} speaking, how may I help?
            I lent the book to {first}'s brother.
            Remind me to buy flowers for {person} at five.
            {last} and {last} signed the lease for {address}.
            Hi {first}, your new number is {phone}, right?
            He said {person} scored twice on Sunday.
            My licence number is {licence} and I live in {city}.
            The server at {ip} does not answer {ip}.
            Could you ring {phone} and ask for {first}?
            I played the new song by {person} all day.
            The landlord, {person}, wants the rent at {iban}.
            Put {first} {last} on the guest list.
            Change my address from {address} to {address}.
            Add {email} to the invitation and drop {email}.
            Who is {person}?
        """),
        "held_out": _lines("""
            Hello, {person} here, I have lost my wallet.
            You can reach {first} at {phone} in the evening.
            Good morning, is this {person}?
            Deliver the sofa to {address} next week.
            They moved from {street} to {street} in spring.
            Charge it to {card}, please.
            I can't see the payment on my card {card}.
            My partner {person} forgot the password for {email}.
            Mail the pictures to {email} tonight.
            The account is {iban}, the holder is {person}.
            Transfer two hundred to {iban}.
            The form asks for the SSN, mine is {ssn}.
            Why is {ip} blocked on our network?
            The officer wrote down {licence} as my license.
            They need a passport, it's {passport}.
            {first} was born {birthday} and is doing fine.
            I saw {person} at the concert in {city}.
            Mr. {last} will not be joining us.
            Miss {last} teaches {first} how to swim.
            The doctor, {person}, told me to rest.
            Have you read the book by {last}?
            Look it up on {url} when you are home.
            I need a taxi from {street} at six.
            We are meeting at {address}, second floor.
            Message {first} and say that dinner is ready.
            {first} and {first} broke up again.
            Does {person} still work with you?
            Let me spell it, the name is {person}.
            Everyone calls her {first} but it is {person}.
            I owe {first} fifty dollars.
            Play something from {person} in the kitchen.
            Did {last} win the election?
            {person}'s dog ran into our garden.
            Cancel the booking under {last} for Monday.
            The neighbours at {address} complained about {person}.
            Leave a voicemail on {phone} if {first} is out.
            Both {email} and {phone} are out of date.
            Invite {person}, {person} and {person}.
            Happy birthday {first}, see you soon.
            My old place was {address}, it burned down.
        """),
    },
    "de": {
        "tuning": _lines("""
            Mein Name ist {person} und ich habe eine Frage.
            Bitte rufen Sie {person} unter {phone} an.
            Ich wohne in der {street}.
            Schick das Paket an {address}.
            Meine Adresse ist {address}.
            Die IBAN ist {iban}.
            Ich heiße {person}, geboren am {birthday}.
            Schreib mir an {email}.
            Hast du {first} heute gesehen?
            Frau {last} kommt morgen mit {first}.
            Die Karte mit der Nummer {card} ist weg.
            Sag {first}, dass ich später komme.
        """),
        "held_out": _lines("""
            Guten Tag, hier spricht {person}.
            Die Nummer von {first} ist {phone}.
            Wir treffen uns bei {address}.
            Fahr mich bitte zur {street}.
            Überweise das Geld auf {iban}.
            Herr {last} hat gestern angerufen.
            Ist Doktor {last} zu sprechen?
            Meine Mail ist {email}.
            {first} und {first} gehen ins Kino.
            Ich bin am {birthday} geboren.
            Kennst du {person} aus der Schule?
            Buch das von der Karte {card} ab.
        """),
    },
    "fr": {
        "tuning": _lines("""
            Je m'appelle {person} et j'ai une question.
            Vous pouvez appeler {person} au {phone}.
            J'habite {street}.
            Envoyez le colis à cette adresse, {address}.
            Mon adresse est {address}.
            L'IBAN est {iban}.
            Madame {last} arrive avec {first}.
            Écris-moi à {email}.
            Est-ce que {first} est là aujourd'hui ?
            Ma carte {card} ne marche plus.
            Je suis né le {birthday}.
            Dis à {first} que je suis en retard.
        """),
        "held_out": _lines("""
            Bonjour, ici {person}.
            Le numéro de {first} est le {phone}.
            Rendez-vous au {address}.
            Conduis-moi {street} s'il te plaît.
            Faites le virement sur {iban}.
            Monsieur {last} a téléphoné hier.
            Le docteur {last} est en vacances.
            Mon mail, c'est {email}.
            {first} et {first} vont au cinéma.
            Date de naissance, {birthday}.
            Tu connais {person} de l'école ?
            Le paiement par la carte {card} est passé deux fois.
        """),
    },
    "hi": {
        "tuning": _lines("""
            मेरा नाम {person} है।
            कृपया {person} को {phone} पर फ़ोन करो।
            {first} कल घर आ रहा है।
            मेरा नंबर {phone} है।
            श्री {last} से बात करो।
            मुझे {email} पर लिखो।
        """),
        "held_out": _lines("""
            नमस्ते, मैं {person} बोल रहा हूँ।
            {first} का नंबर {phone} है।
            क्या {person} घर पर है?
            श्रीमती {last} कल आएंगी।
            {first} और {first} बाज़ार गए हैं।
            मेरा ईमेल {email} है।
        """),
    },
}

HARMLESS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "en": {
        "tuning": _lines("""
            Turn the volume down a little, please.
            What is the capital of the country next door?
            Set a timer for twenty minutes.
            I would like to change my order.
            The printer on the second floor is out of paper again.
            Can we meet after lunch instead of before?
            I don't think that's a good idea at all.
            The train leaves at seven from the main station.
            We need milk, bread and a bag of rice.
            Why does the screen go black every time I open it?
            Read me the news about the weather.
            My brother plays the guitar in a band.
            It will be sunny with a light wind from the west.
            There is a table free by the window.
            You have to press the green button first.
            Could you repeat the last part, I didn't hear it.
            The meeting was moved to the small room on the left.
            Open the window, it's far too warm in here.
            My son will be late because of the rain.
            He may come or he may not, nobody knows.
            I rose early and went for a long walk.
            They mark the exams in the summer.
            Find me a recipe with fish and lemon.
            How far is the nearest petrol station?
            The children are sleeping, keep it down.
            What's on television tonight?
            The price went up by ten percent this year.
            Move the file to the other folder and close the program.
            It costs less if you book two weeks ahead.
            Next time please bring the contract and a pen.
        """),
        "held_out": _lines("""
            Add eggs and butter to the shopping list.
            What time does the pharmacy close today?
            The second half of the film was much better.
            I will think about it and tell you tomorrow.
            Please turn left at the lights and then go straight on.
            My mother wants to know whether you are hungry.
            The new version is slower than the old one.
            We had to wait for an hour in the cold.
            Is it going to snow on the weekend?
            Switch off all the lights in the house.
            The shop at the corner sells fresh bread.
            I have a question about my last bill.
            She has been learning how to drive since the spring.
            Could you speak a bit more slowly?
            The song is too long for the radio.
            Nobody answered the door, so I left.
            Put the kettle on and sit down for a minute.
            There were about three hundred people in the park.
            Do you want the red one or the blue one?
            It takes grace to admit a mistake like that.
            Frank advice is hard to find.
            The plan is to start early and be back before dark.
            Remind me to water the plants at eight.
            The battery is empty after two hours.
            Our flight was cancelled because of the storm.
            He always forgets to lock the back door.
            I can hear you, but the picture is frozen.
            Which bus goes to the airport from here?
            Skip this song and play the next one.
            You could ask at the desk downstairs.
        """),
    },
    "de": {
        "tuning": _lines("""
            Mach bitte das Licht in der Küche an.
            Wie wird das Wetter morgen?
            Stell einen Wecker auf sieben Uhr.
            Der Zug hat leider schon wieder Verspätung.
            Ich möchte einen Tisch für zwei Personen.
            Wo ist hier die nächste Apotheke?
            Das Essen war gut, aber zu teuer.
            Wir brauchen noch Milch und Brot.
        """),
        "held_out": _lines("""
            Spiel bitte das nächste Lied.
            Kannst du mir beim Umzug helfen?
            Es regnet schon den ganzen Tag.
            Ich habe den Schlüssel im Auto vergessen.
            Wann macht der Laden heute zu?
            Der neue Drucker ist kaputt.
            Erinnere mich morgen an die Wäsche.
            Das Zimmer ist zu klein für uns alle.
        """),
    },
    "fr": {
        "tuning": _lines("""
            Allume la lumière dans la cuisine.
            Quel temps fera-t-il demain ?
            Mets un réveil à sept heures.
            Le train est encore en retard.
            Je voudrais une table pour deux personnes.
            Où est la pharmacie la plus proche ?
            C'était bon, mais un peu cher.
            Il nous faut du lait et du pain.
        """),
        "held_out": _lines("""
            Passe à la chanson suivante.
            Tu peux m'aider à porter ça ?
            Il pleut depuis ce matin.
            J'ai oublié les clés dans la voiture.
            À quelle heure ferme le magasin ?
            La nouvelle imprimante ne marche pas.
            Rappelle-moi de sortir la poubelle.
            La chambre est trop petite pour nous tous.
        """),
    },
    "hi": {
        "tuning": _lines("""
            रसोई की बत्ती जला दो।
            कल मौसम कैसा रहेगा?
            सात बजे का अलार्म लगा दो।
            मुझे पानी चाहिए।
        """),
        "held_out": _lines("""
            अगला गाना चलाओ।
            क्या आज बारिश होगी?
            दरवाज़ा बंद कर दो।
            दुकान कब खुलती है?
        """),
    },
}

# Given and family names that no list was asked for.
UNLISTED_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "tuning": _lines("""
        Chinonso Ezeudu
        Thandeka Mabuza
        Giorgi Lomidze
        Nguyen Phuong
        Tsegaye Woldemariam
        Aroha Tamihana
        Mihaela Dragusin
        Yaw Boateng
        Siobhan Kinsella
        Bartosz Wisniewski
        Xochitl Tlapanco
        Ikaika Kealoha
        Rohana Wickramasinghe
        Zsofia Hegedus
        Oyunbileg Batbayar
        Kwabena Asante
        Anneli Saarinen
        Duygu Karaca
        Ishaan Chaturvedi
        Jovana Petkovic
        Lesedi Mokoena
        Park Jiwoo
        Wanjiru Kamau
        Will Rose
        Mark Young
        Grace May
    """),
    "held_out": _lines("""
        Adaeze Nwachukwu
        Sipho Dlamini
        Nino Beridze
        Tran Huong
        Selamawit Gebremedhin
        Wiremu Parata
        Bogdan Ciobanu
        Akua Mensah
        Niamh Gallagher
        Wojciech Kaczmarek
        Citlali Xicotencatl
        Keoni Kahananui
        Dilani Jayasuriya
        Laszlo Szentgyorgyi
        Enkhtuya Ganbold
        Kofi Acheampong
        Pirkko Hamalainen
        Emre Yildirim
        Ananya Mukhopadhyay
        Milorad Vukovic
        Thabiso Nkosi
        Kim Seoyeon
        Nyambura Kariuki
        Rose Hill
        Frank Stone
        Joy Brooks
    """),
}
