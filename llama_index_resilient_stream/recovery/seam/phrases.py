"""The phrases with which models announce that they are about to go on."""

from __future__ import annotations

from itertools import pairwise


def _phrases(listed: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in listed.split("|"))


# How a polite sentence begins, in lower case. Knowing one makes nothing disappear: it only makes the seam wait a little
# longer for the anchor or for a repeat.
OPENERS = _phrases(
    """
    sure | certainly | of course | absolutely | okay | ok | alright | all right | right | got it | yes |
    understood | no problem | sorry | i'm sorry | i’m sorry | i am sorry | i apologize | i apologise |
    apologies | my apologies | thank you | thanks | here is | here's | here’s | here are | here it |
    let me | i'll | i’ll | i will | to continue | continuing | continued | continuation | resuming |
    picking up | the rest | as i was saying | as requested | great | happy to | the answer continues |
    natürlich | klar | gern | sicher | selbstverständlich | entschuldig | verzeihung | tut mir leid |
    hier ist | hier geht | weiter geht | ich setze | ich fahre | ich mache | fortsetzung | in ordnung |
    bien sûr | bien entendu | certainement | d'accord | d’accord | désolé | pardon |
    toutes mes excuses | je m'excuse | je reprends | je continue | voici | la suite | excusez |
    suite de | claro | por supuesto | desde luego | de acuerdo | perdón | disculp | lo siento |
    continúo | continúa | continuando | sigo | aquí | continuación | a continuación | entendido | vale |
    retomo | com certeza | certo | desculp | aqui está | continuação | prosseguindo | sem problemas |
    certamente | ecco | mi scus | scus | continuo | riprendo | proseguo | va bene | naturalmente |
    natuurlijk | zeker | prima | hier is | ik ga verder | excuses | mijn excuses | vervolg |
    oczywiście | jasne | przepraszam | oto | kontynu | samozřejmě | jistě | omlouvám | pokračuj |
    självklart | visst | givetvis | naturligtvis | selvfølgelig | beklager | ursäkta | här är | her er |
    tietenkin | toki | pahoittelut | jatkan | tässä | természetesen | persze | elnézést | folytat |
    tabii | elbette | üzgünüm | özür | devam | işte | desigur | sigur | îmi cer | continuăm | конечно |
    хорошо | разумеется | извин | прошу прощения | продолж | вот | звичайно | вибач | продовж |
    βεβαίως | φυσικά | συγγνώμη | συνεχίζ | εντάξει | 当然 | 好的 | 好， | 没问题 | 抱歉 | 对不起 |
    继续 | 以下是 | 接上文 | 接着 | 當然 | 沒問題 | 對不起 | 繼續 | 接續 | もちろん | 承知 |
    かしこまり | はい、 | はい。 | 了解し | 申し訳 | すみません | 失礼 | 続き | それでは | 물론 | 네, | 네. | 알겠 |
    죄송 | 계속 | 이어서 | 다음은 | بالتأكيد | بالطبع | حسنا | حسنًا | عذرا | عذرًا | أعتذر | آسف |
    إليك | متابعة | أكمل | نعم | בטח | כמובן | בוודאי | סליחה | מצטער | המשך | ממשיך | הנה | אמשיך |
    ज़रूर | जरूर | बिल्कुल | क्षमा | माफ़ | यहाँ | जारी | ठीक है | chắc chắn | tất nhiên | xin lỗi |
    tiếp tục | dưới đây | tentu | baik | maaf | berikut | melanjutkan
    """
)

# Words that speak of going on, of being cut off, or of the rest: parts of them, in lower case.
GOING_ON = _phrases(
    """
    continu | continú | left off | cut off | interrupt | where i stopped | where it stopped |
    picking up | pick up | the rest | remainder | remaining | resum | carry on | carrying on |
    going on | fortsetz | setze fort | fort, wo | fortfahr | unterbroch | unterbrech | mache | weiter |
    der rest | den rest | abgebroch | aufgehört | stehen geblieben | reprend | la suite | interromp |
    le reste | arrêté | interrump | el resto | me quedé | lo dejé | sigo | sigue | retomo | o restante |
    o resto | parei | prosseg | riprend | interrott | il resto | prosegu | verder | vervolg |
    onderbrok | de rest | kontynu | przerwa | dalsz | ciąg | pokrač | přeruš | fortsätt | fortsæt |
    fortsett | avbröt | resten | jatka | keskey | folytat | megszak | devam | kaldığ | kesil |
    întrerup | restul | продолж | прерва | прерыв | остановил | оставш | остальн | продовж | перерв |
    решта | συνέχ | συνεχ | 继续 | 接着 | 中断 | 剩余 | 剩下 | 余下 | 续写 | 接上文 | 繼續 | 接續 |
    中斷 | 剩餘 | 打断 | 続き | 続け | 途中 | 再開 | 残り | 이어 | 계속 | 중단 | 나머지 | 끊긴 |
    متابعة | أتابع | استكمال | أكمل | توقف | انقطع | بقية | تكملة | המשך | אמשיך | ממשיך | נקטע |
    הפסקתי | שאר | जारी | बाकी | शेष | रुक | tiếp tục | gián đoạn | phần còn lại | lanjut | terputus
    """
)

# Phrases that hardly speak of anything else.
SURELY_GOING_ON = _phrases(
    """
    my previous | previous response | previous answer | previous message | my answer | my response |
    i left off | we left off | it left off | was cut off | got cut off | was interrupted | i stopped |
    wo ich unterbrochen | wo ich aufgehört | wo ich abgebrochen | je me suis arrêté |
    j'ai été interrompu | me quedé | lo dejé | onde parei | da dove | мы остановились | я остановился |
    меня прервали | 从中断 | 中断的地方 | 中斷的地方 | 中断したところ | 途中から | 끊긴 부분 |
    حيث توقفت | מהמקום שבו | kaldığım
    """
)

# How else a sentence begins that announces the whole answer.
ALL_OF_IT = _phrases(
    """
    the full | the complete | the entire | the whole | full | complete | entire | whole | below is | this is the |
    --- | *** | vollständig | der vollständige | die vollständige | das vollständige | der ganze | die ganze |
    der gesamte | texte complet | le texte complet | la réponse complète | el texto completo |
    la respuesta completa | texto completo | o texto completo | il testo completo | полный | полностью | 完整 | 全文 |
    全体
    """
)

_STEMS = tuple(opener for opener in OPENERS if len(opener) > 5 or not opener.isascii())
_WORDS = tuple(opener for opener in OPENERS if opener not in _STEMS)  # "ok" and "right", not "okra" and "rights"
_UNFINISHED = frozenset(opener[:length] for opener in OPENERS for length in range(len(opener)))
_LONGEST = max(map(len, OPENERS)) + 1
_MARKS = "*_([（【\"'“«"
_CLOSING = ":：.…)]）】*_ \n"
_PLAIN = frozenset(" ,.;:!?'’\"“”«»()[]*_-–—…，。：！？、（）\n\t\u00a0")


def opens_politely(text: str) -> bool:
    """Return whether the text is, or may still become, the beginning of a polite sentence."""
    if text[0].isspace() or text[0].islower():
        return False
    low = text.lstrip(_MARKS)[:_LONGEST].casefold()
    return low in _UNFINISHED or _opener(low) != ""


def is_courtesy(text: str, *, alone: bool = False) -> bool:
    """Return whether a polite sentence is no more than that: it says nothing, or that an answer is going on.

    Args:
        text: The sentence, up to where it ends.
        alone: Whether it must end in a colon, and not just speak of going on.
    """
    low = text.lstrip(_MARKS).casefold().strip()
    opener = _opener(low)
    if not low[len(opener) :].strip(_CLOSING + ",!，！"):
        return not alone or text.endswith(("!", "！"))
    return any(phrase in low for phrase in GOING_ON) and (not alone or low.endswith((":", "：")))


def is_courteous(text: str) -> bool:
    """Return whether an announcement is addressed to somebody: "Sure, continuing from where I left off:"."""
    low = text.lstrip(_MARKS).casefold()
    opener = _opener(low)
    return not any(phrase in opener for phrase in GOING_ON) and any(phrase in low for phrase in SURELY_GOING_ON)


def leads_to_all_of_it(text: str) -> bool:
    """Return whether the text is, or may still become, the beginning of a sentence before the whole answer."""
    low = text.lstrip(_MARKS)[:16].casefold()
    return opens_politely(text) or any(low.startswith(lead[: len(low)]) for lead in ALL_OF_IT)


def is_announcement(text: str, *, within_a_sentence: bool) -> bool:
    """Return whether the text says that an answer is going on here, and nothing else.

    Args:
        text: The beginning of a continuation, up to a colon or line break.
        within_a_sentence: Whether the partial text ends inside a sentence. Elsewhere the same words may be the title
            of the next section.
    """
    low = text.lstrip(_MARKS).casefold()
    opener = _opener(low)
    if not opener:
        return False
    rest = low[len(opener) :]
    if not rest.strip(_CLOSING):
        rest = low  # "Continuing:" alone is enough
    score = sum(phrase in rest for phrase in GOING_ON) + 2 * any(phrase in rest for phrase in SURELY_GOING_ON)
    return score + (within_a_sentence and (":" in rest or "：" in rest)) >= 2


def is_prose(text: str) -> bool:
    """Return whether the text looks like words and not like code."""
    return all(char.isalpha() or char in _PLAIN for char in text) and not any(
        char.isupper() and before.islower() for before, char in pairwise(text)
    )


def _opener(low: str) -> str:
    if low.startswith(_STEMS):
        return max((stem for stem in _STEMS if low.startswith(stem)), key=len)
    if low.startswith(_WORDS):
        word = max((word for word in _WORDS if low.startswith(word)), key=len)
        following = low[len(word) : len(word) + 1]
        return "" if following.isalpha() and following.isascii() else word
    return ""
