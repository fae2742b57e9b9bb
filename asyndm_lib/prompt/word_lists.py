"""Word lists: which words of a prompt may name a thing, and which, in English, never do.

The lists are short: they hold what stands in many prompts. A word that they lack, of whatever
language, may name a thing; whether it has a region is then seen from its token maps.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator


def _listed(*lists: str) -> frozenset[str]:
    return frozenset(" ".join(lists).split())


FUNCTION = _listed(
    # articles, pronouns, conjunctions, auxiliaries
    """
    a an the this that these those such some any each every all both either neither no none not nor same
    i me my mine you your yours he him his she her hers it its we us our ours they them their theirs
    himself herself itself themselves oneself who whom whose which what when where while why how there here
    and or but so as than then if though although because since until unless also too only just even still yet
    again ever never always often sometimes is are was were be been being am has have had having do does did doing
    can could will would shall should may might must let lets get gets got getting
    """,
    # prepositions and places
    """
    of in on at by to from for with without within into onto upon off out over under above below beneath underneath
    behind before after between betwixt among amongst amid across along around about against beside besides
    next near nearby beyond through throughout toward towards inside outside up down away apart together during per
    via like unlike versus vs plus minus left right top bottom ahead aside forward backward facing surrounded
    """,
    # verbs that tell what things do
    """
    sit sits sitting stand stands standing lie lies lying laying walk walks walking run runs running jump jumps
    jumping ride rides riding drive drives driving hold holds holding carry carries carrying wear wears wearing
    dressed look looks looking watching stare staring gaze gazing see seeing seen show shows showing
    shown playing plays eat eats eating drinking sleep sleeps sleeping read reads reading write
    writing fight fights fighting dance dances dancing sing singing swim swims swimming float floats fall
    falls hang hangs grow growing stay staying wait waiting come coming go goes going gone make makes making made
    take takes taking taken put puts placed give giving use using used cover covered covering fill filled
    filling contain containing feature features featuring include including depict depicts depicting depicted
    posing pose poses laughing laugh crying cry grin grinning talking speaking leaning kneeling crouching squatting
    climbing cooking working touching hugging kissing pointing reaching pulling pushing throwing catching
    emerging rising setting turning spinning exploding reflecting reflected lit illuminated decorated detailed
    painted drawn rendered inspired designed created isolated centered centred
    """
)
"""Words that hold an English sentence together, in lower case."""

OTHERS = _listed(
    # counts and places
    """
    middle center centre front back side sides edge corner foreground background backdrop backgrounds upside
    surrounding
    zero one two three four five six seven eight nine ten eleven twelve twenty thirty hundred hundreds thousand
    thousands million half double triple single multiple several many much more most few fewer less least lots lot
    dozen dozens pair pairs group bunch couple set kind kinds sort type types part parts piece pieces number other
    others another first second third last number various different countless numerous solo duo trio
    """,
    # colours
    """
    red orange-red green blue yellow purple pink brown gray grey black white cyan magenta turquoise teal beige maroon
    crimson scarlet golden silvery indigo azure navy tan monochrome monochromatic colored coloured colorful colourful
    color colour colors colours multicolored multicoloured rainbow-colored pastel tone tones toned hue hues tint
    tinted palette greyscale grayscale sepia blond blonde brunette reddish bluish greenish
    """,
    # qualities
    """
    big small little tiny large huge giant enormous gigantic massive miniature mini tall short long wide narrow thick
    thin fat slim slender skinny old young new ancient modern vintage retro antique futuristic medieval contemporary
    classic classical traditional hot cold warm cool cozy cosy wet dry soft hard smooth rough sharp blurry blurred
    clean dirty shiny glossy matte bright dark dim pale deep vivid vibrant dull beautiful pretty gorgeous stunning
    cute lovely adorable handsome ugly elegant graceful majestic epic magical mystical mysterious enchanted ethereal
    surreal dreamy whimsical fantastic amazing awesome incredible wonderful magnificent breathtaking perfect flawless
    nice good great best better bad worst worse fine happy sad angry smiling serious lonely calm peaceful quiet serene
    gentle wild fierce scary creepy spooky evil cursed holy sacred royal rich poor simple complex plain fancy ornate
    delicate intricate elaborate round square-shaped circular rectangular triangular flat straight curly wavy messy
    fluffy furry fuzzy hairy full round open closed broken cracked rusty dusty sunny cloudy rainy snowy stormy foggy
    misty windy frozen burning glowing shining sparkling glittering floating flying falling hanging wooden woolen
    woollen metallic earthen nude naked sexy muscular strong weak heavy light-colored lightweight fast slow quick
    real fake true false rare common special unique strange weird odd funny silly crazy mad delicious tasty fresh
    ripe raw cooked juicy sweet sour lush dense sparse empty distant close closeup far high low upper lower inner
    outer main own free busy crowded abandoned ruined overgrown alone very extremely highly quite really rather
    slightly softly gently brightly beautifully perfectly finely well almost nearly exactly simply mostly
    haired eyed colored skinned shaped sized legged winged sleeved based themed
    asian european african american japanese chinese korean indian russian french german italian spanish english
    british western eastern northern southern male female adult mature
    """,
    # the picture itself: its kind, its make and its praise
    """
    photo photos photograph photographs photography photographic picture pictures image images drawing drawings
    painting paintings illustration illustrations cartoon cartoons sketch sketches art arts artwork artworks artist
    artistic emoji emojis icon icons clipart poster wallpaper portrait portraits render renders rendering scene scenes
    scenery view views viewer shot shots angle perspective composition style styles styled stylized stylised aesthetic
    aesthetics design designs concept theme mood atmosphere atmospheric ambiance ambience vibe vibes feeling texture
    textures textured pattern detail details quality resolution masterpiece masterpieces artstation deviantart pixiv
    trending professional award winning awarded cinematic film movie anime manga comic realistic realism
    photorealistic photorealism hyperrealistic hyperrealism hyper ultra super extreme absurdres highres hires hd uhd
    fhd hdr hq cg cgi vfx sdr raw dslr bokeh blur focus focused lighting illumination backlit backlighting exposure
    contrast saturation saturated shading shaded shadows cel cel-shaded lineart linework outline outlined vector
    minimalist minimalism minimalistic abstract impressionism impressionist surrealism expressionism baroque
    rococo noir cyberpunk steampunk fantasy sci-fi scifi horror digital analog analogue watercolor watercolour
    acrylic gouache pencil-drawn pixel isometric lowpoly octane unreal blender vray graphic graphics wide-angle macro
    full-body fullbody halfbody full-length score safe nsfw sfw rating explicit version official unofficial
    """
)
"""Other words that never name a thing."""

BEFORE_A_THING = _listed(
    """
    orange gold silver bronze copper violet glass stone brick marble leather paper metal wood steel iron ice crystal
    velvet silk cotton wool denim lace satin plastic concrete clay ceramic porcelain cardboard chrome rubber light
    square circle oval fire neon
    """
)
"""Words that name a thing by themselves, but describe one where another word follows.

"An orange" is a thing, "an orange cat" a cat.
"""

PHRASES = re.compile(
    r"\b(?:depth of field|rule of thirds|golden hour|blue hour|clip[ -]?art|line[ -]?art|concept art|oil painting"
    r"|unreal engine|point of view|work of art|state of the art|(?:full|upper|lower|half)[ -]body"
    r"|(?:soft|natural|volumetric|rim|studio|dramatic|ambient) lights?)\b",
    re.IGNORECASE,
)
"""Phrases that name no thing, though their words do."""

_TAG = re.compile(r"<\w+:[^<>]*>")
_NUMBER = re.compile(r"\d+(?:[kpxsd]|mm|px|cm|st|nd|rd|th)?", re.IGNORECASE)
_ENDS = ",;!?\n|\u060c\u061f\u3001\u3002\uff0c"
"""Characters that end a phrase, beside a full stop."""

_INSIDE = "-'\u2019"
_JOINERS = "\u200c\u200d"


def things(text: str) -> list[str]:
    """The words of a text that may name a thing, in order, each once.

    ``text``: a prompt, or a part of one, without ``AND`` and prompt editing.
    """
    words = list(_words(PHRASES.sub(",", _TAG.sub(" ", text))))
    found: dict[str, str] = {}
    for at, word in enumerate(words):
        follower = words[at + 1] if at + 1 < len(words) else None
        if word is not None and not _never(word) and not _describes(word, follower):
            found.setdefault(word.casefold(), word)
    return list(found.values())


def _never(word: str) -> bool:
    # "blue-haired" and "high_quality" are what their last part is.
    last = word.casefold().replace("_", "-").rpartition("-")[2]
    return word == "BREAK" or last in FUNCTION or last in OTHERS or (len(last) == 1 and last.isascii())


def _describes(word: str, follower: str | None) -> bool:
    return word.casefold() in BEFORE_A_THING and follower is not None and follower.casefold() not in FUNCTION


def _words(text: str) -> Iterator[str | None]:
    """The words of a text and its runs of symbols such as emoji; None where a phrase ends.

    Bare numbers are left out.
    """
    at = 0
    while at < len(text):
        kind, start = _kind(text, at), at
        at += 1
        if kind == "end":
            yield None
        elif kind in ("word", "symbol"):
            while at < len(text) and _continues(kind, text, at):
                at += 1
            if not _NUMBER.fullmatch(text[start:at]):
                yield text[start:at]


def _kind(text: str, at: int) -> str | None:
    char = text[at]
    if char in _ENDS or (char == "." and not text[at + 1 : at + 2].isdigit()):
        return "end"
    category = unicodedata.category(char)
    return "word" if category[0] in "LN" else "symbol" if category == "So" else None


def _continues(kind: str, text: str, at: int) -> bool:
    char, category = text[at], unicodedata.category(text[at])
    if category[0] == "M" or char in _JOINERS:
        return True
    if kind == "symbol":
        return category in ("So", "Sk")
    inside = char in _INSIDE and at + 1 < len(text) and unicodedata.category(text[at + 1])[0] in "LN"
    return category[0] in "LN" or char == "_" or inside
