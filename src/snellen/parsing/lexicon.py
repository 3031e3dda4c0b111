"""The words with which answers are given, by language. A further language is one entry.

All entries are parts of regular expressions, joined by ``|``. In languages with spaces, they match whole
words in any case; in others, and where affixes are common, parts of words.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LANGUAGES", "YES_NO", "Language", "any_of"]


@dataclass(frozen=True, kw_only=True)
class Language:
    """The words of a language.

    Attributes:
        spaced: whether words match as a whole.
        answer: the noun, before the answer ("the answer is", "answer:").
        option: nouns for what a letter stands for.
        right: what the right option is; ``wrong``: what another one is.
        chooses: verbs and phrases before the letter that somebody chooses or thinks to be right.
        closes: copulas, and words of certainty or conclusion, before a letter at the end of a text.
        remains: what is left when the others are rejected.
        negates: negations of a statement.
        but: what follows the rejected one in "not A but B".
        recants: what takes back the answer before it.
    """

    spaced: bool = True
    answer: str = ""
    option: str = ""
    right: str = ""
    wrong: str = ""
    chooses: str = ""
    closes: str = ""
    remains: str = ""
    negates: str = ""
    but: str = ""
    recants: str = ""


LANGUAGES = {
    "English": Language(
        closes=r"clearly|certainly|definitely|surely|(?:a|any|no)\sdoubt",
        remains=r"remains|remaining|left\swith",
        recants=r"wait|on\ssecond\sthought|correction|scratch\sthat|let\sme\sre-?\w+|looking\s(?:again|more\sclosely|closer)"
        r"|my\smistake|(?:made\sa|was\sa)\smistake|I\smeant|actually",
    ),
    "Arabic": Language(
        spaced=False,
        answer="الإجابة|إجاب|جواب",
        option="الخيار|الحرف",
        right="صحيح",
        wrong="خاطئ|غير|خطأ",
        chooses=r"أختار|أعتقد\sأن(?:ها|ه)?",
        closes="هي|هو|شك|أي",
        remains="يتبقى|يبقى",
        negates="ليست?|غير|استبعد",
        but="بل",
        recants=r"انتظر|في\sالواقع|تصحيح",
    ),
    "Chinese": Language(
        spaced=False,
        answer="答案|正确选项|选项|解答|故选|应选|选择?|所以选|所以是|因此是|那么是",
        option="选项",
        right="正确|正確|最佳|最好|合适|恰当",
        wrong="错误|錯誤|不正",
        chooses="选择?|我选|應選|应选|我认为是|我觉得是",
        closes="是|即",
        remains="只剩|剩下",
        negates="不|排除",
        but="而是",
        recants="更正|等等|不对[,，]",
    ),
    "French": Language(
        answer="réponse",
        option=r"réponse|lettre|proposition|l['’]option",
        right="bonne|juste|correcte?|convient",
        wrong="faux|fausse|mauvaise|incorrecte?s?",
        chooses=r"choisis|choisirais|sélectionne|(?:je\s)?(?:pense|crois|dirais)\sque\sc['’]est",
        closes="est|serait|doute|certainement|évidemment|donc",
        remains="reste",
        negates=r"pas|non|(?:élimin|exclu)\w*",
        but=r"mais|c['’]est",
        recants=r"attendez|en\sfait",
    ),
    "German": Language(
        answer=r"antwort|lösung|richtig\sist",
        option=r"antwort|buchstabe|aussage|(?:um|die)\soption",
        right=r"richtig\w{0,2}|korrekt\w{0,2}|zutreffend",
        wrong="falsche?[nrs]?|falsch",
        chooses=r"wähle|nehme|(?:ich\s)?(?:denke|glaube|meine|würde\ssagen),?\s(?:dass\s)?es\sist",
        closes="ist|wäre|zweifel|klar|eindeutig|sicher|bestimmt|also|somit",
        remains="bleibt|verbleibt",
        negates=r"nicht|(?:ausschl|ausgeschl)\w*",
        but="sondern|ist",
        recants=r"moment\smal|korrektur|korrigiere",
    ),
    "Hindi": Language(
        spaced=False,
        answer="उत्तर|जवाब",
        option="विकल्प|अक्षर",
        right="सही|उपयुक्त",
        wrong="गलत",
        chooses=r"लगता\sहै(?:\sकि)?",
        closes="से|यानी|बेशक",
        remains="बचता|बचा",
        negates="नहीं",
        recants="रुकिए|दरअसल",
    ),
    "Indonesian": Language(
        answer="jawaban|jawabannya",
        option="pilihan|huruf|opsi",
        right="benar|tepat|cocok",
        wrong="salah",
        chooses=r"memilih|pilih|menurut\ssaya",
        closes="adalah|ialah|pasti|tentu|jelas|yaitu|yakni",
        remains="tersisa",
        negates=r"bukan|tidak|singkirk\w*",
        but="melainkan",
        recants="tunggu|sebenarnya",
    ),
    "Italian": Language(
        answer="risposta",
        option="opzione|risposta|lettera",
        right="corrett[ao]|giust[ao]|conviene",
        wrong="errat[ao]|sbagliat[ao]|fals[ao]",
        chooses=r"scelgo|sceglierei|direi|seleziono|(?:penso|credo|direi)\s(?:che\s)?(?:sia|è)",
        closes="è|sarebbe|dubbio|certamente|sicuramente|chiaramente|cioè|quindi",
        remains="rimane|resta",
        negates=r"non|(?:elimin|esclud)\w*",
        but="ma|bensì|è",
        recants=r"aspetta|in\srealtà",
    ),
    "Japanese": Language(
        spaced=False,
        answer="答え|正解|回答|解答",
        option="選択肢",
        right="正しい|正解|適切",
        wrong="誤|間違|不正",
        closes="は",
        remains="残る|残り",
        negates="ない|ません|除外",
        recants="訂正|いや、|待って",
    ),
    "Korean": Language(
        spaced=False,
        answer="정답|답",
        option="선택지|보기",
        right="정답|맞",
        wrong="오답|틀린",
        closes="[은는]|므로",
        remains="남은|남는",
        negates="아니|아닙|제외",
        recants="정정|다시 보니|잠깐",
    ),
    "Portuguese": Language(
        answer="resposta|gabarito",
        option="opção|alternativa|resposta|letra|gabarito",
        right="cert[ao]|corret[ao]",
        wrong="errad[ao]|incorret[ao]|fals[ao]",
        chooses=r"escolho|escolheria|seleciono|marco|(?:acho|penso|creio|diria)\sque\sé",
        closes=r"é|seria|dúvida|ou\sseja",
        remains=r"fico\scom|resta",
        negates=r"não|(?:descart|elimin|exclu)\w*",
        but=r"mas(?:\ssim)?|é",
        recants=r"na\sverdade|espera",
    ),
    "Russian": Language(
        answer=r"ответ|вариант",
        option=r"вариант\w{0,4}|буква",
        right=r"правильн\w*|верн\w*|подход\w*",
        wrong=r"неправильн\w*|неверн\w*",
        chooses=r"выбираю|выберу|выбрал\sбы|(?:думаю|считаю),?\s(?:что\s)?это",
        closes="сомнения|конечно|очевидно|значит|точно|есть",
        remains="остаётся|остается",
        negates=r"не|исключ\w*",
        but="а|это",
        recants=r"стоп|точнее|на\sсамом\sделе",
    ),
    "Spanish": Language(
        answer="respuesta",
        option="opción|alternativa|respuesta|letra",
        right="correct[ao]|conviene",
        wrong="incorrect[ao]s?|equivocad[ao]|fals[ao]",
        chooses=r"elijo|elegiría|digo|escojo|escogería|selecciono|(?:creo|pienso|diría)\sque\ses",
        closes="es|sería|duda|definitivamente|claramente|decir",
        remains=r"quedo\scon|queda",
        negates=r"no|(?:descart|elimin|exclu)\w*",
        but="sino|es",
        recants=r"pero\sespera|mejor\sdicho|en\srealidad",
    ),
    "Thai": Language(
        spaced=False,
        answer="คำตอบ|ตอบ|เฉลย",
        option="ตัวเลือก|ข้อ",
        right="ถูก",
        wrong="ผิด",
        chooses="เลือก|คิดว่า(?:เป็น)?",
        closes="คือ|เป็น",
        remains="เหลือ",
        negates="ไม่",
        but="แต่(?:เป็น)?",
        recants="เดี๋ยว|แก้ไข",
    ),
    "Turkish": Language(
        answer=r"(?:cevap|cevab|yanıt)\w{0,8}",
        option="şık",
        right=r"doğru\w{0,4}|uygun",
        wrong="yanlış",
        chooses="bence|sanırım",
        closes="kesinlikle|elbette|yani",
        remains="geriye",
        negates="değil",
        recants="aslında|düzeltme",
    ),
    "Vietnamese": Language(
        answer=r"đáp\sán|câu\strả\slời",
        option=r"phương\sán|lựa\schọn|trả\slời",
        right=r"đúng|phù\shợp",
        wrong="sai",
        chooses=r"chọn|(?:tôi\s)?nghĩ\s(?:đó\s)?là",
        closes=r"là|chắc\schắn|rõ\sràng|tức\slà",
        remains=r"chỉ\scòn",
        negates=r"không|loại",
        but=r"mà\slà",
        recants=r"khoan|thực\sra",
    ),
}


#: Words that answer wherever an answer may stand: yes and no, by language.
YES_NO = {
    "English": (
        "yes, yeah, yep, yup, definitely yes, you bet",
        "no, nope, nah, definitely not, absolutely not, certainly not, of course not",
    ),
    "Arabic": ("نعم, أجل, نعم بالتأكيد", "لا, كلا"),
    "Chinese": ("是, 是的, 有, 有的, 对, 对的, 存在", "否, 不, 不是, 不是的, 没有, 没, 沒有, 不对, 不存在"),
    "French": ("oui", "non"),
    "German": ("ja, jawohl", "nein"),
    "Hindi": ("हाँ, हां, जी हाँ", "नहीं, जी नहीं"),
    "Indonesian": ("ya", "tidak, bukan"),
    "Italian": ("sì, si", "no"),
    "Japanese": ("はい, ええ", "いいえ, いえ"),
    "Korean": ("네, 예", "아니요, 아니오, 아뇨"),
    "Polish": ("tak", "nie"),
    "Portuguese": ("sim", "não, nao"),
    "Russian": ("да", "нет"),
    "Spanish": ("sí, si", "no"),
    "Thai": ("ใช่, ใช่ครับ, ใช่ค่ะ, มีครับ, มีค่ะ", "ไม่, ไม่ใช่, ไม่มี"),
    "Turkish": ("evet", "hayır, yok"),
    "Vietnamese": ("có, vâng, đúng", "không, không có"),
}


def any_of(field: str) -> str:
    """Return a pattern for the words of a field in all languages.

    >>> import re
    >>> bool(re.fullmatch(any_of("answer"), "Antwort")), bool(re.search(any_of("answer"), "antworten"))
    (True, False)
    """
    words = [getattr(language, field) for language in LANGUAGES.values() if language.spaced]
    parts = [getattr(language, field) for language in LANGUAGES.values() if not language.spaced]
    whole, part = "|".join(filter(None, words)), "|".join(filter(None, parts))
    return "(?:" + "|".join(filter(None, [whole and rf"(?i:\b(?:{whole})\b)", part])) + ")"
