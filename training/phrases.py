"""Numbers, dates, times and commands in Danish, Dutch and English, as they are said."""

from collections.abc import Callable

import numpy as np

LANGUAGES = ("da", "nl", "en")

_DA_ONES = "nul en to tre fire fem seks syv otte ni ti elleve tolv tretten fjorten femten seksten sytten atten nitten"
_DA_TENS = "tyve tredive fyrre halvtreds tres halvfjerds firs halvfems"
_NL_ONES = (
    "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien "
    "achttien negentien"
)
_NL_TENS = "twintig dertig veertig vijftig zestig zeventig tachtig negentig"
_EN_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_EN_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def _below_100(n: int, ones: list[str], tens: list[str], joined: Callable[[str, str], str]) -> str:
    if n < 20:
        return ones[n]
    ten, one = tens[n // 10 - 2], n % 10
    return joined(ten, ones[one]) if one else ten


def number(n: int, language: str) -> str:
    """0 to 9999 in words."""
    if language == "da":
        ones, tens = _DA_ONES.split(), _DA_TENS.split()
        small = _below_100(n % 100, ones, tens, lambda ten, one: f"{one}og{ten}")
        hundred = "" if n < 100 else f"{'et' if n // 100 % 10 == 1 else ones[n // 100 % 10]} hundrede"
        thousand = f"{'et' if n // 1000 == 1 else ones[n // 1000 % 10]} tusind"
        link = " og "
    elif language == "nl":
        ones, tens = _NL_ONES.split(), _NL_TENS.split()
        small = _below_100(n % 100, ones, tens, lambda ten, one: one + ("ën" if one[-1] == "e" else "en") + ten)
        hundred = "honderd" if n // 100 % 10 == 1 else f"{ones[n // 100 % 10]}honderd"
        thousand = "duizend" if n // 1000 == 1 else f"{ones[n // 1000 % 10]}duizend"
        link = " "
    else:
        ones, tens = _EN_ONES.split(), _EN_TENS.split()
        small = _below_100(n % 100, ones, tens, lambda ten, one: f"{ten} {one}")
        hundred, thousand = f"{ones[n // 100 % 10]} hundred", f"{ones[n // 1000 % 10]} thousand"
        link = " and "
    parts = [thousand] * (n >= 1000) + [hundred] * (n // 100 % 10 > 0)
    head = " ".join(parts)
    if not parts:
        return small
    return head if n % 100 == 0 else f"{head}{link}{small}"


_WORDS: dict[str, dict[str, list[str]]] = {
    "da": {
        "month": [
            "januar",
            "februar",
            "marts",
            "april",
            "maj",
            "juni",
            "juli",
            "august",
            "september",
            "oktober",
            "november",
            "december",
        ],
        "day": ["mandag", "tirsdag", "onsdag", "torsdag", "fredag", "lørdag", "søndag"],
        "ordinal": [
            "første",
            "anden",
            "tredje",
            "fjerde",
            "femte",
            "sjette",
            "syvende",
            "ottende",
            "niende",
            "tiende",
            "ellevte",
            "tolvte",
        ],
        "room": ["køkkenet", "stuen", "soveværelset", "badeværelset", "kælderen", "haven", "gangen", "kontoret"],
        "thing": ["lyset", "varmen", "radioen", "døren", "vinduet", "alarmen", "maskinen", "lampen"],
        "name": ["anna", "peter", "mette", "lars", "sofie", "jens", "karen", "niels", "emma", "oskar"],
        "city": ["københavn", "aarhus", "odense", "aalborg", "esbjerg", "randers", "kolding", "vejle"],
        "food": ["brød", "mælk", "ost", "smør", "kaffe", "te", "æbler", "fisk", "ris", "kartofler"],
    },
    "nl": {
        "month": [
            "januari",
            "februari",
            "maart",
            "april",
            "mei",
            "juni",
            "juli",
            "augustus",
            "september",
            "oktober",
            "november",
            "december",
        ],
        "day": ["maandag", "dinsdag", "woensdag", "donderdag", "vrijdag", "zaterdag", "zondag"],
        "ordinal": [
            "eerste",
            "tweede",
            "derde",
            "vierde",
            "vijfde",
            "zesde",
            "zevende",
            "achtste",
            "negende",
            "tiende",
            "elfde",
            "twaalfde",
        ],
        "room": [
            "de keuken",
            "de kamer",
            "de slaapkamer",
            "de badkamer",
            "de kelder",
            "de tuin",
            "de gang",
            "de zolder",
        ],
        "thing": [
            "het licht",
            "de verwarming",
            "de radio",
            "de deur",
            "het raam",
            "het alarm",
            "de machine",
            "de lamp",
        ],
        "name": ["anna", "pieter", "sanne", "kees", "sofie", "jan", "maria", "dirk", "emma", "bram"],
        "city": ["amsterdam", "rotterdam", "utrecht", "groningen", "maastricht", "haarlem", "leiden", "breda"],
        "food": ["brood", "melk", "kaas", "boter", "koffie", "thee", "appels", "vis", "rijst", "aardappels"],
    },
    "en": {
        "month": [
            "january",
            "february",
            "march",
            "april",
            "may",
            "june",
            "july",
            "august",
            "september",
            "october",
            "november",
            "december",
        ],
        "day": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
        "ordinal": [
            "first",
            "second",
            "third",
            "fourth",
            "fifth",
            "sixth",
            "seventh",
            "eighth",
            "ninth",
            "tenth",
            "eleventh",
            "twelfth",
        ],
        "room": ["the kitchen", "the hall", "the bedroom", "the bathroom", "the cellar", "the garden", "the office"],
        "thing": ["the light", "the heating", "the radio", "the door", "the window", "the alarm", "the lamp"],
        "name": ["anna", "peter", "mary", "john", "sophie", "james", "karen", "david", "emma", "oscar"],
        "city": ["london", "bristol", "oxford", "leeds", "dublin", "cardiff", "glasgow", "york"],
        "food": ["bread", "milk", "cheese", "butter", "coffee", "tea", "apples", "fish", "rice", "potatoes"],
    },
}
_TEMPLATES: dict[str, list[str]] = {
    "da": [
        "tænd {thing} i {room}", "sluk {thing} i {room}", "åbn {thing}", "luk {thing} nu",
        "ring til {name} på {day}", "ring til {digits}", "den {ordinal} {month}", "{day} den {ordinal} {month}",
        "klokken er {hour}", "klokken {hour} på {day}", "mødet begynder klokken {hour}",
        "toget til {city} kører om {small} minutter",
        "det koster {number} kroner", "køb {small} kilo {food}", "køb {food} og {food}", "{number}", "{digits}",
        "vejen til {city} er {number} kilometer", "hvor langt er der til {city}", "send en besked til {name}",
        "væk mig klokken {hour}", "sæt varmen på {small} grader", "hvad er {small} plus {small}", "{name} bor i {city}",
        "{name} kommer på {day}", "spil musik i {room}",
    ],
    "nl": [
        "doe {thing} aan in {room}", "doe {thing} uit in {room}", "open {thing}", "sluit {thing} nu",
        "bel {name} op {day}", "bel {digits}", "de {ordinal} {month}", "{day} de {ordinal} {month}",
        "het is {hour} uur", "om {hour} uur op {day}", "de vergadering begint om {hour} uur",
        "de trein naar {city} rijdt over {small} minuten", "het kost {number} euro", "koop {small} kilo {food}",
        "koop {food} en {food}", "{number}", "{digits}", "de weg naar {city} is {number} kilometer",
        "hoe ver is het naar {city}", "stuur een bericht aan {name}", "maak me wakker om {hour} uur",
        "zet de verwarming op {small} graden", "hoeveel is {small} plus {small}", "{name} woont in {city}",
        "{name} komt op {day}", "speel muziek in {room}",
    ],
    "en": [
        "turn on {thing} in {room}", "turn off {thing} in {room}", "open {thing}", "close {thing} now",
        "call {name} on {day}", "call {digits}", "the {ordinal} of {month}", "{day} the {ordinal} of {month}",
        "it is {hour} o'clock", "at {hour} o'clock on {day}", "the meeting starts at {hour}",
        "the train to {city} leaves in {small} minutes", "it costs {number} pounds", "buy {small} pounds of {food}",
        "buy {food} and {food}", "{number}", "{digits}", "the road to {city} is {number} miles",
        "how far is it to {city}", "send a message to {name}", "wake me at {hour} o'clock",
        "set the heating to {small} degrees", "what is {small} plus {small}", "{name} lives in {city}",
        "{name} comes on {day}", "play music in {room}",
    ],
}  # fmt: skip


def phrase(language: str, rng: np.random.Generator) -> str:
    """One phrase of `language`, lower case, figures in words."""
    templates, words = _TEMPLATES[language], _WORDS[language]
    text = templates[rng.integers(len(templates))]
    while "{" in text:
        slot = text[text.index("{") + 1 : text.index("}")]
        text = text.replace("{" + slot + "}", _fill(slot, language, words, rng), 1)
    return text


def _fill(slot: str, language: str, words: dict[str, list[str]], rng: np.random.Generator) -> str:
    if slot == "number":
        return number(int(rng.integers(10 ** rng.integers(1, 5))), language)
    if slot == "small":
        return number(int(rng.integers(2, 60)), language)
    if slot == "hour":
        return number(int(rng.integers(1, 13)), language)
    if slot == "digits":
        return " ".join(number(int(d), language) for d in rng.integers(0, 10, rng.integers(3, 7)))
    return words[slot][rng.integers(len(words[slot]))]
