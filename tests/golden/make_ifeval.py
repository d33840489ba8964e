"""Verdicts of IFEval's own program on made-up responses, for tests/golden/ifeval.json.

    pip install langdetect==1.0.9 nltk==3.9.1 absl-py immutabledict packaging
    python make_ifeval.py HARNESS NLTK_DATA > ifeval.json

HARNESS is a checkout of EleutherAI/lm-evaluation-harness, whose lm_eval/tasks/ifeval is google-research's
instruction_following_eval; NLTK_DATA a folder with tokenizers/punkt_tab/english. The language detector is seeded with 0. NLTK 3.10 counts
words by another pattern engine, in which a mark belongs to the letter before it; published figures rest on earlier ones.
Texts, instructions and arguments are drawn here, with a fixed seed.
"""

import importlib
import json
import logging
import os
import random
import sys
import types

harness, os.environ["NLTK_DATA"] = sys.argv[1:3]
logging.disable(logging.CRITICAL)
for name in ["lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"]:
    package = types.ModuleType(name)
    package.__path__ = [os.path.join(harness, *name.split("."))]
    sys.modules[name] = package
import nltk
import nltk.data
from nltk.tokenize.punkt import PunktTokenizer

punkt = PunktTokenizer("english")
load = nltk.data.load
nltk.data.load = lambda name, *rest: punkt if "punkt" in name else load(name, *rest)
import langdetect

langdetect.DetectorFactory.seed = 0
utils = importlib.import_module("lm_eval.tasks.ifeval.utils")

LANGUAGES = {
    "en": "The harbour was quiet that morning. Two boats had left before dawn, and only the gulls remained to argue over the nets.",
    "de": "Am Morgen lag der Hafen still da. Zwei Boote waren schon vor Tagesanbruch ausgelaufen, und nur die Möwen stritten noch.",
    "fr": "Le port était calme ce matin-là. Deux bateaux étaient partis avant l'aube, et seules les mouettes se disputaient encore.",
    "es": "El puerto estaba tranquilo aquella mañana. Dos barcos habían salido antes del amanecer y sólo quedaban las gaviotas.",
    "pt": "O porto estava calmo naquela manhã. Dois barcos tinham saído antes do amanhecer e só as gaivotas ficaram.",
    "it": "Il porto era tranquillo quella mattina. Due barche erano partite prima dell'alba e restavano soltanto i gabbiani.",
    "ru": "В то утро гавань была тиха. Две лодки ушли ещё до рассвета, и только чайки спорили над сетями.",
    "bg": "Тази сутрин пристанището беше тихо. Две лодки бяха тръгнали преди зазоряване и само чайките се караха.",
    "vi": "Sáng hôm đó bến cảng thật yên tĩnh. Hai chiếc thuyền đã rời đi trước bình minh, chỉ còn lại đàn hải âu.",
    "hi": "उस सुबह बंदरगाह शांत था। दो नावें भोर से पहले निकल चुकी थीं और केवल समुद्री पक्षी बचे थे।",
    "ar": "كان الميناء هادئا في ذلك الصباح. غادر قاربان قبل الفجر ولم يبق سوى النوارس.",
    "fa": "آن روز صبح بندر آرام بود. دو قایق پیش از سپیده دم رفته بودند و تنها مرغان دریایی مانده بودند.",
    "ko": "그날 아침 항구는 조용했다. 배 두 척이 새벽이 오기 전에 떠났고 갈매기만 남아 있었다.",
    "ja": "その朝、港は静かだった。二隻の船は夜明け前に出て行き、カモメだけが残っていた。",
    "zh-cn": "那天早上港口很安静。两艘船在黎明前就离开了，只剩下海鸥在争吵。",
    "th": "เช้าวันนั้นท่าเรือเงียบสงบ เรือสองลำออกไปก่อนรุ่งสาง เหลือเพียงนกนางนวล",
    "ta": "அன்று காலை துறைமுகம் அமைதியாக இருந்தது. இரண்டு படகுகள் விடியலுக்கு முன் சென்றுவிட்டன.",
    "sw": "Asubuhi hiyo bandari ilikuwa tulivu. Boti mbili zilikuwa zimeondoka kabla ya alfajiri, na shakwe tu walibaki.",
    "fi": "Sinä aamuna satama oli hiljainen. Kaksi venettä oli lähtenyt ennen aamunkoittoa, ja vain lokit jäivät.",
    "mixed": "Bonjour my friend, das ist a test of viele lingue mezcladas.",
}
SENTENCES = [
    "Dr. J. S. Brown of Acme Inc. arrived at 5.30 p.m. on Jan. 3rd.", "Is it so?! \"Yes,\" she said. (It was.)",
    "He paid $3.50 (approx. 3 euros) for No. 7, i.e. the last one.", "WE CANNOT STOP NOW! Don't you see?",
    "See https://example.org/a.b?c=d or write to a.person@example.org.", "The end... or is it. . . perhaps -- not",
    "U.S. troops left. The U.K. stayed.", "it's 'quoted' text; the dogs' bones, 'tis said.", "I'M GONNA WIN, y'all.",
    "Wait—what?  1) First. 2) Second.", "E.g. this. Cf. that, vs. Other et al. (1999).", "A.B.C. is No. 1. Mr. X. agreed.",
    "Version 2.0.1. Released!", "\u201cCurly.\u201d \u2018Quotes.\u2019 \u00abDone.\u00bb Next.", "NASA AND THE FBI MET IN D.C. ON MON.",
    "Gimme more'n that, d'ye hear? LEMME GO.", "What's up?\tTabs\r\nand returns.", "word", "...", "?", "\u1f88\u01c5 \u0130stanbul STRASSE",
    "\u0939\u093f\u0928\u094d\u0926\u0940 word, na\u00efve CAF\u00c9 x\u00b2", "one,two;three:four", "a\u001cb\u2028c\u0085d",
]
FORMS = [
    "* first point\n* second point\n- third point", "  - a\n\n  * b\n**bold start** of a line", "*one* and **two** and ** ** and *\n*",
    "[name], your [item\nbroken] and [date] [] here", "<<A Title>>\n\nText under it.", "<<  >> <<<x>>>", "Section 1\nfirst\nSection 2\nsecond",
    "SECTION 3 and section 4 and Section5", "first ***\nsecond *** third", "***\nonly\n***", "a ****** b", "a ****** a", "a ******  ****** b",
    "****** a ****** b ******", "{\"a\": [1, 2.5e3, NaN], \"b\": \"\\ud800\"}", "```json\n{\"a\": 1}\n```", "```JSON [1, 2,] ```", "```\n\"x\"```",
    "My answer is yes.", "well, My answer is no. I think", "my answer is maybe.", "Text.\n\nP.S. more", "text p. s. more", "P.P.S even more", "p. p. S",
    "Paragraph one.\n\n'Second' one.\n\nThird, and last.", "Para\n\n\n\nOther", "\"all in quotes\"", "\" \"", "\"", "'single'",
    "repeat this exactly\n\nthen an answer", "Sure!\nrepeat this exactly\nBye", "the end of it.", "Is there anything else?\"", "ALL CAPS HERE, NOT A DOUBT ABOUT IT.",
    "all lowercase here, with not a doubt about it.", "MANY CAPITAL WORDS but Not All of THEM", "123 456", "", "   \n ", "*", "**\n**",
]


def texts(draw):
    pool = list(LANGUAGES.values()) + SENTENCES + FORMS
    made = list(pool)
    while len(made) < 210:
        parts = [draw.choice(pool) for _ in range(draw.randint(2, 5))]
        text = draw.choice([" ", "\n", "\n\n", " *** ", "\n\n***\n\n"]).join(parts)
        change = draw.randrange(8)
        text = text.upper() if change == 0 else text.lower() if change == 1 else f"\"{text}\"" if change == 2 else text
        made.append(text)
    return made


def instructions(draw):
    relation = lambda: draw.choice(["less than", "at least"])
    words = ["harbour", "boats", "text", "ANSWER", "a", "point", "morning", "no", "हिन्दी", "second"]
    return {
        "keywords:existence": {"keywords": draw.sample(words, 2)},
        "keywords:frequency": {"keyword": draw.choice(words), "frequency": draw.randint(1, 4), "relation": relation()},
        "keywords:forbidden_words": {"forbidden_words": draw.sample(words, 2)},
        "keywords:letter_frequency": {"letter": draw.choice("aeQtz"), "let_frequency": draw.randint(1, 20), "let_relation": relation()},
        "language:response_language": {"language": draw.choice([name for name in LANGUAGES if name not in ("zh-cn", "mixed")])},
        "length_constraints:number_sentences": {"num_sentences": draw.randint(1, 12), "relation": relation()},
        "length_constraints:number_paragraphs": {"num_paragraphs": draw.randint(1, 5)},
        "length_constraints:number_words": {"num_words": draw.randint(1, 90), "relation": relation()},
        "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 3, "nth_paragraph": draw.randint(1, 3), "first_word": draw.choice(["second", "Third", "paragraph", "the"])},
        "detectable_content:number_placeholders": {"num_placeholders": draw.randint(1, 4)},
        "detectable_content:postscript": {"postscript_marker": draw.choice(["P.S.", "P.P.S", "Note"])},
        "detectable_format:number_bullet_lists": {"num_bullets": draw.randint(1, 4)},
        "detectable_format:constrained_response": {},
        "detectable_format:number_highlighted_sections": {"num_highlights": draw.randint(1, 4)},
        "detectable_format:multiple_sections": {"section_spliter": draw.choice(["Section", "SECTION"]), "num_sections": draw.randint(1, 3)},
        "detectable_format:json_format": {},
        "detectable_format:title": {},
        "combination:two_responses": {},
        "combination:repeat_prompt": {"prompt_to_repeat": draw.choice(["Repeat this exactly", "first ", "The harbour was"])},
        "startend:end_checker": {"end_phrase": draw.choice(["the end of it.", "Is there anything else?", "Next.", "gulls"])},
        "change_case:capital_word_frequency": {"capital_frequency": draw.randint(1, 8), "capital_relation": relation()},
        "change_case:english_capital": {},
        "change_case:english_lowercase": {},
        "punctuation:no_comma": {},
        "startend:quotation": {},
    }


def language(text):
    try:
        return langdetect.detect(text)
    except langdetect.LangDetectException:
        return None


def main():
    draw = random.Random(7)
    rows = []
    for text in texts(draw):
        asked = instructions(draw)
        prompt = utils.InputExample(0, list(asked), "", list(asked.values()))
        row = {"text": text, "language": language(text), "sentences": punkt.tokenize(text), "words": nltk.word_tokenize(text)}
        row["kwargs"] = list(asked.values())
        for name, judge in [("strict", utils.test_instruction_following_strict), ("loose", utils.test_instruction_following_loose)]:
            row[name] = [int(followed) for followed in judge(prompt, text).follow_instruction_list]
        rows.append(row)
    document = {"instructions": list(asked), "rows": rows}
    json.dump(document, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    sys.stdout.write("\n")


main()
