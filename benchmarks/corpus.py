"""The kinds of text that are cut in the benchmark of the seam. All of it was written for this purpose."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True)
class Sample:
    """One text. In a `repetitive` one, a literal repetition is what comes next as often as not."""

    kind: str
    text: str
    repetitive: bool = False


def _prose(indented: str) -> str:
    """A line break within a paragraph is only there for this file's sake."""
    return re.sub(r"(?<!\n)\n(?!\n|$)", " ", _text(indented))


def _unspaced(indented: str) -> str:
    """The same for scripts that put no space between words."""
    return re.sub(r"(?<!\n)\n(?!\n|$)", "", _text(indented))


def _text(indented: str) -> str:
    return dedent(indented).strip("\n") + "\n"


PROSE = _prose("""
    When the ferry stopped running, the island had to learn how to be an island again. Mrs. Okafor, who had kept the
    post office for thirty-one years, was the first to notice: letters piled up in the back room, and nobody came to
    ask for them. “They will come,” she told her nephew. He did not believe her.

    In the second week a fisherman from the north shore offered to take mail across, weather permitting. He asked for
    no money, only for company. So it happened that the doctor, the schoolteacher and, once, the mayor herself sat
    among nets and canvas bags for two hours and talked about things they had never found time for. Was it efficient?
    Hardly. The teacher later said that she had learned more about the place in one crossing than in ten years.

    By the time the new ferry arrived (white, fast, and heated), something had changed. People still took the small
    boat on Thursdays. It cost them half a day. Nobody seemed to mind, and Mrs. Okafor, who never liked the sea,
    bought herself a yellow coat.
""")

EXPLANATION = _text("""
    ## Why the cache was empty

    The short version: **every worker had its own cache**, and the load balancer sent each request to a different
    worker. So a value that was stored by one worker was invisible to the others.

    Three things made this hard to see:

    - On a laptop there is only one worker, and everything works.
    - The hit rate is reported per worker, not for the whole service.
    - The entries expire after 30 seconds, which hides the problem after a restart.

    ### What to do

    1. Move the cache out of the process. A small Redis instance is enough.
    2. Give every key a version, e.g. `v2:user:42`, so that old entries are never read by new code.
    3. Report the hit rate where it is *used*: in the request handler.

    You could also use sticky sessions, but that only moves the problem: as soon as a worker is restarted, all of its
    users start with nothing. If you need help with step 1, tell me which framework you use.
""")

GERMAN = _prose("""
    Der alte Bahnhof von Kleinwarden wird im Frühjahr geschlossen. Das hat der Gemeinderat am Dienstag beschlossen,
    nachdem er drei Stunden lang darüber gestritten hatte. Für den Erhalt sprachen sich vor allem die Jüngeren aus.
    Bürgermeisterin Anneliese Vogt nannte die Entscheidung „schmerzlich, aber vernünftig“.

    Künftig halten die Züge zwei Kilometer weiter östlich, wo auch der Bus fährt. Ob das Gebäude abgerissen wird, ist
    noch offen: Eine Genossenschaft möchte dort Wohnungen einrichten, ein Investor aus der Kreisstadt ein Hotel. Bis
    zum Sommer sollen beide ihre Pläne vorlegen. Übrig bleibt vorerst die Uhr, die seit 1987 auf zehn vor vier steht.
    Niemand weiß, warum. Wer sie reparieren wollte, bekam vom Bahnhofswirt stets dieselbe Antwort, nämlich gar keine.
""")

FRENCH = _prose("""
    Le marché commence avant le jour. À cinq heures, les premiers camions reculent dans la rue des Tanneurs ; on
    entend des caisses qui glissent, des voix basses, une radio. « Tu as vu le prix des abricots ? » demande quelqu'un.
    Personne ne répond.

    Vers sept heures arrivent les restaurateurs. Ils touchent, ils sentent, ils discutent peu. L'un d'eux, un homme
    très maigre, achète chaque samedi douze kilos de tomates et une seule aubergine. Qu'en fait-il ? La marchande a
    longtemps cherché l'explication, puis elle a renoncé. Après dix heures, il ne reste que les curieux, les familles
    et les chiens. On baisse les prix, on plie les parasols. À midi, la rue est lavée, et l'on jurerait que rien ne
    s'est passé.
""")

RUSSIAN = _prose("""
    Зимой дорога к метеостанции закрыта, и продукты привозят раз в месяц. Начальник станции, Виктор Андреевич,
    считает это преимуществом. «Здесь никто не опаздывает», — говорит он и смеётся.

    Каждые три часа дежурный выходит к приборам. Температура, влажность, направление ветра, высота снега: всё
    записывается от руки, а потом передаётся по радио. Автоматика давно куплена, но лежит в ящиках. Почему? Потому
    что её некому наладить. Весной обещали прислать инженера. Если он приедет, двум дежурным придётся искать другую
    работу, и об этом на станции стараются не говорить. Вечером они играют в шахматы и слушают, как гудит антенна.
""")

CHINESE = _unspaced("""
    老城南门外有一家很小的修表铺，只放得下一张桌子和两把椅子。店主姓周，今年七十三岁，修表已经五十多年。他常说：
    “表走得准不准，先看人急不急。”

    每天上午九点，他把卷帘门拉到一半，先泡一壶茶，然后才开始工作。来的客人大多是老街坊，也有专程从外地赶来的年轻
    人。去年冬天，一位姑娘带来一块停了二十年的怀表，那是她祖父留下的。周师傅看了很久，没有收钱，只说需要三个月。

    春天的时候，怀表重新走了起来。姑娘来取表那天，下着小雨，两个人都没有说话。后来她把这件事写进了一篇文章，铺子
    忽然热闹了一阵。周师傅并不习惯，于是在门口贴了一张纸：今日休息，明日再来。

    店里最贵的东西不是表，而是墙上那面旧镜子。镜框是黄铜的，边角已经磨亮。有人出高价想买，周师傅总是摇头，说镜子
    里还住着几位老朋友。孩子们听了，趴在柜台上找了半天，什么也没有找到。

    到了夏天，巷子里要修下水道，挖掘机从早响到晚。周师傅把所有的钟都调快了五分钟，他说这样工人们可以早一点下班。
    没有人知道这是不是真的起了作用，不过那条路果然提前三天修好了。通车那天，街坊们凑钱买了西瓜，坐在门口一直聊到
    路灯亮起。
""")

JAPANESE = _unspaced("""
    駅前の食堂は、朝六時に店を開ける。最初の客はいつも新聞配達の青年で、決まって焼き魚の定食を頼む。店主は注文を
    聞く前に、もう魚を火にかけている。

    昼になると、近くの工場から作業員がやって来る。カウンターは十席しかないので、外に列ができることもある。「待た
    せて悪いね」と店主が言うと、誰かが必ず「慣れてますから」と答える。そのやりとりは、もう二十年も続いている。

    夕方、店は静かになる。店主は椅子に座り、ラジオで野球を聞きながら、翌日の米を研ぐ。息子は東京で働いていて、店
    を継ぐつもりはないらしい。それでも彼は、古い暖簾を毎晩ていねいに畳む。雨の日も、雪の日も、変わらない。

    ある秋の夜、見慣れない客が一人で入って来た。背の高い女性で、大きな楽器のケースを抱えている。彼女は味噌汁だけ
    を注文し、半分ほど飲むと、静かに泣き始めた。店主は何も聞かず、ラジオの音を少しだけ小さくした。

    翌週、その女性は仲間を三人連れて戻って来た。四人は店の隅で小さな演奏会を開き、常連たちは箸を置いて耳を傾けた。
    曲が終わると、工場長が立ち上がって「もう一度お願いします」と言った。それ以来、毎月最後の金曜日には、食堂の窓
    から音楽が流れるようになった。
""")

KOREAN = _prose("""
    산 아래 작은 도서관에는 하루에 열 명 남짓한 사람이 찾아온다. 사서인 민정 씨는 그들의 이름을 모두 알고 있다.
    책을 빌리러 오는 사람보다 이야기를 나누러 오는 사람이 더 많기 때문이다.

    지난가을에는 지붕이 새서 책 이백 권이 젖었다. 마을 사람들은 책을 한 권씩 집으로 가져가 난로 옆에서 말렸다.
    돌아온 책에는 저마다 다른 냄새가 배어 있었다. 어떤 책에서는 고구마 냄새가 났고, 어떤 책에서는 담배 냄새가
    났다. 민정 씨는 그 책들을 따로 모아 창가에 꽂아 두었다. 아이들은 그 자리를 냄새 책장이라고 부른다.

    겨울이 오자 도서관 앞마당에 작은 천막이 생겼다. 읍내 빵집 주인이 팔다 남은 빵을 가져다 두고, 누구든 책을
    읽으면 하나씩 먹을 수 있게 했다. 처음에는 아이들만 왔지만, 며칠 뒤에는 버스 기사들도 들렀다. 그중 한 사람은
    추리 소설을 끝까지 읽느라 첫차를 놓칠 뻔했다.

    민정 씨는 그 일을 일기에 적었다. 그리고 맨 아래에 이렇게 덧붙였다. 좋은 책은 사람을 늦게 만들지만, 늦은
    사람은 대개 웃고 있다.
""")

ARABIC = _prose("""
    في نهاية الشارع القديم يقع مقهى صغير لا يحمل اسما. يفتح صاحبه الباب بعد صلاة الفجر، ويغلقه حين ينصرف آخر
    الزبائن. لا توجد قائمة للمشروبات، فالجميع يعرف ما يريد.

    يجلس المعلم حسن قرب النافذة كل صباح، ويقرأ الجريدة من آخرها إلى أولها. سأله طفل ذات يوم: لماذا تقرأ
    بالمقلوب؟ ضحك وقال إن الأخبار الصغيرة أصدق من الكبيرة. ومنذ ذلك اليوم صار الطفل يجلس معه بعد المدرسة.

    عندما قررت البلدية توسيع الشارع، ظن الناس أن المقهى سيختفي. لكن المهندسة التي رسمت المخطط كانت تلك الطفلة
    التي كبرت في الحي، فتركت للمقهى مكانه وغرست أمامه شجرتين.
""")

HEBREW = _prose("""
    בקצה השדרה עומד קיוסק ירוק שנבנה לפני שמונים שנה. בעליו, יעקב, מכיר כל עובר אורח ויודע מה ישתה עוד לפני
    שביקש. בקיץ הוא מוכר גזוז, ובחורף תה עם נענע.

    לפני שנתיים רצתה העירייה להחליף אותו במכונה אוטומטית. התושבים אספו אלף חתימות תוך שבוע אחד. מי שיזמה את
    העצומה הייתה נערה בת שש עשרה, שלמדה אצל יעקב לשחק שחמט. בסופו של דבר הוחלט להשאיר את הקיוסק ולצבוע אותו
    מחדש. הוויכוח על הצבע נמשך עד היום. יש מי שרוצה כחול, ויש מי שלא מוכן לשמוע על שום צבע אחר.
""")

HINDI = _prose("""
    नदी के उस पार एक पुराना बाग़ है जहाँ अब कोई नहीं जाता। गाँव के बुज़ुर्ग कहते हैं कि वहाँ कभी आम के सौ पेड़
    थे। अब केवल सात बचे हैं।

    पिछले साल स्कूल के बच्चों ने वहाँ जाकर सूखी पत्तियाँ हटाईं और नए पौधे लगाए। अध्यापिका सुनीता हर रविवार उनके
    साथ जाती हैं। पानी नदी से लाना पड़ता है, इसलिए काम धीरे चलता है। फिर भी किसी बच्चे ने छोड़ने की बात नहीं की।
    बरसात आई तो आधे पौधे बह गए। उन्होंने दोबारा लगाए, इस बार थोड़ी ऊँची ज़मीन पर।
""")

THAI = _prose("""
    ร้านหนังสือเล็ก ๆ ริมคลองเปิดเฉพาะวันเสาร์และอาทิตย์ เจ้าของเป็นครูเกษียณที่ไม่เคยรีบร้อน
    เขามักนั่งอยู่หลังโต๊ะไม้เก่าแล้วอ่านหนังสือของตัวเองไปด้วย

    ลูกค้าส่วนใหญ่มาทางเรือ บางคนซื้อหนังสือเล่มเดียวแล้วอยู่คุยทั้งบ่าย
    เด็กจากโรงเรียนใกล้เคียงยืมหนังสือได้โดยไม่ต้องจ่ายเงิน เพียงแต่ต้องเล่าเรื่องที่อ่านให้ครูฟังตอนเอามาคืน
    ปีที่แล้วน้ำท่วมสูงถึงหน้าต่าง ทุกคนช่วยกันขนหนังสือขึ้นชั้นบน ไม่มีเล่มไหนหายไปเลยแม้แต่เล่มเดียว
""")

EMOJI = _prose("""
    Packing list for the weekend 🏕️: tent ⛺, two sleeping bags 🛏️🛏️, a torch 🔦 and, please, real coffee ☕!

    Who is coming? 👩‍👩‍👧‍👦 The Marins, 👨🏽‍🚀 Theo (straight from work, he says), 👩🏿‍🔬 Ada and her dog
    🐕‍🦺. From abroad: 🇨🇭 Urs,
    🇧🇷 Camila, 🇯🇵 Haruto. Bring a flag 🏴󠁧󠁢󠁳󠁣󠁴󠁿 if you like 🙃.

    Rules: ❤️‍🔥 no phones at dinner, 1️⃣ fire only, 🚯 nothing left behind. Names to practise: Zoë,
    Ame\u0301lie, Nguyê\u0303n,
    A\u030angstro\u0308m, z\u0301o\u0302\u0323e. See you on Friday 👋🏻👋🏽👋🏿 — or later 😅😂🤷‍♀️.
""")

PYTHON = _text('''
    from __future__ import annotations

    import heapq
    from collections import defaultdict


    class Graph:
        """A directed graph with weighted edges."""

        def __init__(self) -> None:
            self.edges: dict[str, dict[str, float]] = defaultdict(dict)

        def connect(self, start: str, end: str, cost: float = 1.0) -> None:
            if cost < 0:
                raise ValueError(f"cost must not be negative: {cost}")
            self.edges[start][end] = cost

        def shortest(self, start: str, goal: str) -> tuple[float, list[str]]:
            queue = [(0.0, start, [start])]
            seen = set()
            while queue:
                cost, node, path = heapq.heappop(queue)
                if node == goal:
                    return cost, path
                if node in seen:
                    continue
                seen.add(node)
                for neighbour, step in self.edges[node].items():
                    heapq.heappush(queue, (cost + step, neighbour, [*path, neighbour]))
            raise LookupError(f"no way from {start} to {goal}")


    if __name__ == "__main__":
        graph = Graph()
        graph.connect("a", "b", 2.5)
        graph.connect("b", "c")
        print(graph.shortest("a", "c"))
''')

JAVASCRIPT = _text("""
    The hook below loads the list once and again whenever the filter changes:

    ```js
    import { useEffect, useState } from 'react';

    export function useOrders(filter) {
      const [orders, setOrders] = useState([]);
      const [error, setError] = useState(null);

      useEffect(() => {
        const controller = new AbortController();
        fetch(`/api/orders?status=${filter}`, { signal: controller.signal })
          .then((response) => {
            if (!response.ok) throw new Error(`HTTP ${response.status}`);
            return response.json();
          })
          .then(setOrders)
          .catch((reason) => {
            if (reason.name !== 'AbortError') setError(reason);
          });
        return () => controller.abort();
      }, [filter]);

      return { orders, error };
    }
    ```

    Note the `AbortController`: without it a slow answer could overwrite a newer one. In the component:

    ```jsx
    const { orders, error } = useOrders('open');
    if (error) return <p className="error">{error.message}</p>;
    ```
""")

JSON_PRETTY = _text("""
    {
      "invoice": "2026-0117",
      "customer": {
        "name": "Brückner & Söhne",
        "address": ["Hafenstraße 12", "24103 Kiel"],
        "vat": null
      },
      "items": [
        {"sku": "T-100", "title": "Oak table", "quantity": 1, "price": 489.0},
        {"sku": "C-220", "title": "Chair, stackable", "quantity": 6, "price": 74.5},
        {"sku": "L-031", "title": "Lamp \\"Moon\\"", "quantity": 2, "price": 129.9}
      ],
      "shipping": {
        "method": "carrier",
        "insured": true,
        "tracking": ["DE9912", "DE9913"]
      },
      "discount": {"percent": 5, "reason": "returning customer"},
      "notes": "Please call before delivery. The lift is out of order until March."
    }
""")

JSON_MINIFIED = (
    '{"users":[{"id":1,"name":"Ada","roles":["admin","author"],"active":true},{"id":2,"name":"Bo","roles":["author"],'
    '"active":false},{"id":3,"name":"Chidi","roles":[],"active":true},{"id":4,"name":"Dolores","roles":["reader"],'
    '"active":true},{"id":5,"name":"Eze","roles":["reader","author"],"active":true},{"id":6,"name":"Fatima","roles":'
    '["reader"],"active":false}],"page":1,"pages":3,"links":{"self":"/users?page=1","next":"/users?page=2","last":'
    '"/users?page=3"},"meta":{"took":0.0132,"cached":false,"version":"2026-05-01"}}'
)

TABLE = _text("""
    Here is how the four plans compare:

    | Plan       | Seats | Storage | Support          | Price / month |
    |------------|------:|--------:|------------------|--------------:|
    | Free       |     1 |    5 GB | community        |          0.00 |
    | Team       |    10 |  100 GB | e-mail, 2 days   |         29.00 |
    | Business   |    50 |    1 TB | e-mail, same day |        119.00 |
    | Enterprise |   any |     any | phone, 24 h      |    on request |

    And what an upgrade changes:

    | From | To | Data moved | Downtime |
    |---|---|---|---|
    | Free | Team | yes | none |
    | Team | Business | yes | about a minute |
    | Business | Enterprise | on request | arranged with you |

    Prices are without tax. The smallest plan is enough for most clubs.
""")

LISTS = _text("""
    A week without a car, step by step:

    1. Monday: find out what you really drive for
       - write down every trip, with its distance
       - mark the ones that took less than 20 minutes
    2. Tuesday: try the bus
       - buy the ticket the evening before
       - read something on the way; do not look at the traffic
    3. Wednesday: borrow a bicycle
       * check the brakes
       * choose the quiet road even if it is longer
    4. Thursday: work at home, if you can
    5. Friday: ask a colleague for a lift
    6. Saturday:
       a) shop on foot, with a trolley
       b) have the heavy things delivered
    7. Sunday: compare your notes

    What you will need:
    * comfortable shoes
    * a rain jacket
    * some patience, above all on Tuesday
""")

LATEX = _text(r"""
    \section{Convergence}
    Let $f\colon \mathbb{R}^n \to \mathbb{R}$ be convex and $L$-smooth. Gradient descent with step size $\eta \le 1/L$
    satisfies
    \begin{equation}
      f(x_k) - f(x^\ast) \le \frac{\lVert x_0 - x^\ast \rVert^2}{2 \eta k}. \label{eq:rate}
    \end{equation}
    \begin{proof}
    By smoothness, $f(x_{k+1}) \le f(x_k) - \frac{\eta}{2} \lVert \nabla f(x_k) \rVert^2$. Convexity gives
    \begin{align}
      f(x_k) - f(x^\ast) &\le \langle \nabla f(x_k), x_k - x^\ast \rangle \\
      &= \frac{1}{2\eta} \left( \lVert x_k - x^\ast \rVert^2 - \lVert x_{k+1} - x^\ast \rVert^2 \right)
         + \frac{\eta}{2} \lVert \nabla f(x_k) \rVert^2.
    \end{align}
    Summing over $k$ makes the right-hand side telescope, and \eqref{eq:rate} follows. \qedhere
    \end{proof}
    For strongly convex functions the rate is linear: $\lVert x_k - x^\ast \rVert \le
    (1 - \mu/L)^{k/2} \lVert x_0 - x^\ast \rVert$.
""")

HTML = _text("""
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <title>Harbour tides</title>
        <style>
          body { font: 16px/1.5 system-ui; margin: 2rem auto; max-width: 40rem; }
          .high { color: #064; } .low { color: #840; }
        </style>
      </head>
      <body>
        <h1>Tides for today</h1>
        <ul id="tides">
          <li class="high"><time datetime="04:12">4.12</time> 3.9 m</li>
          <li class="low"><time datetime="10:31">10.31</time> 0.8 m</li>
          <li class="high"><time datetime="16:40">16.40</time> 4.1 m</li>
        </ul>
        <p>Heights are above chart datum. <a href="/about">How we measure</a></p>
        <script>document.title += ' – ' + new Date().toDateString();</script>
      </body>
    </html>
""")

YAML = _text("""
    name: release
    on:
      push:
        tags: ["v*"]
    permissions:
      contents: read
    jobs:
      test:
        strategy:
          matrix:
            python: ["3.11", "3.12", "3.13"]
            os: [ubuntu-latest, macos-latest]
        runs-on: ${{ matrix.os }}
        steps:
          - uses: actions/checkout@v4
          - uses: actions/setup-python@v5
            with:
              python-version: ${{ matrix.python }}
          - run: pip install -e .[dev]
          - run: pytest -q --maxfail=1
      publish:
        needs: test
        runs-on: ubuntu-latest
        environment: pypi
        steps:
          - uses: actions/checkout@v4
          - run: |
              python -m build
              python -m twine check dist/*
""")

DIFF = _text("""
    diff --git a/shop/cart.py b/shop/cart.py
    index 3f1c2aa..9b07e51 100644
    --- a/shop/cart.py
    +++ b/shop/cart.py
    @@ -14,11 +14,14 @@ class Cart:
         def total(self):
    -        total = 0
    -        for item in self.items:
    -            total += item.price * item.quantity
    -        return total
    +        return sum(line.amount for line in self.lines())
    +
    +    def lines(self):
    +        for item in self.items:
    +            yield Line(item, item.quantity)

         def clear(self):
    -        self.items = []
    +        self.items.clear()
    +        self.changed = True
    @@ -40,3 +43,4 @@ class Cart:
         def __len__(self):
    -        return len(self.items)
    +        # Quantities count, not lines.
    +        return sum(item.quantity for item in self.items)
""")

DIALOGUE = _text("""
    USER: Can I return the kettle without the box?
    AGENT: Sure! Here is what you need to know: the box is not required, but the receipt is.
    USER: Okay. Continuing from there: what if I paid in cash?
    AGENT: Of course, cash is fine too. The rest is simple: bring the kettle, sign, and take your money.
    USER: Sorry, one more thing. Where was I... right, the cable is missing.
    AGENT: I apologize for the trouble. Certainly, we can take it without the cable.

    Continuing with the next customer:

    USER: Hello? I was cut off.
    AGENT: Hello again! You were asking about the toaster. Let me continue: it is in stock, in red and in blue.
    USER: Yes, yes, the red one. Great.
    AGENT: Here is the link to the red one.
""")


def _base64(letters: random.Random) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    lines = ["".join(letters.choices(alphabet, k=64)) for _ in range(13)]
    return "-----BEGIN CERTIFICATE-----\n" + "\n".join(lines) + "\nq3Rk0w==\n-----END CERTIFICATE-----\n"


def _log(numbers: random.Random) -> str:
    levels = ("INFO ", "INFO ", "INFO ", "DEBUG", "WARN ")
    events = (
        "GET /health 200",
        "GET /orders 200",
        "POST /orders 201",
        "cache miss for key orders:open",
        "retry 1 of 3",
    )
    lines, second = [], 7
    for _ in range(18):
        second += numbers.randint(0, 3)
        lines.append(f"2026-03-04T11:25:{second:02d}Z {numbers.choice(levels)} [worker-{numbers.randint(1, 3)}] ")
        lines[-1] += numbers.choice(events)
    return "\n".join(lines) + "\n"


POEM = _text("""
    The miller's wheel goes round and round,
    And what was lost is never found.
        Turn, turn, the water said,
        Turn, turn, and earn your bread.

    My father ground the barley here,
    My mother sold the bread and beer.
        Turn, turn, the water said,
        Turn, turn, and earn your bread.

    The river froze, the wheel stood still,
    And snow lay deep upon the mill.
        Turn, turn, the water said,
        Turn, turn, and earn your bread.
        Turn, turn, and earn your bread.

    Now I am old and count the years
    By millstones, mice and barley ears.
        Turn, turn, the water said,
        Turn, turn, and earn your bread.
        Turn, turn, and earn your bread.
        Turn, turn, and earn your bread.
""")

SAME_LINES = "All work and no play makes a dull day.\n" * 24

RESPONSES = _text("""
    Litany for the opening of the bridge

    For those who drew the plans: we thank them.
    For those who poured the stone: we thank them.
    For those who poured the stone: we thank them.
    For those who climbed the ropes: we thank them.
    For those who crossed too soon: remember them.
    For those who crossed too soon: remember them.
    For those who wait below: remember them.
    For those who wait below: remember them.
    For those who wait below: remember them.
    For those who wait below: remember them.

    Sing it again, sing it again, sing it again, sing it again,
    La la la la la la la la, la la la la la la la la,
    Sing it again, sing it again, sing it again, sing it again,
    No no no no, no no no no, no no no no, no no no no!
""")

_RANDOM = random.Random(20261117)

CORPUS: tuple[Sample, ...] = (
    Sample("prose", PROSE),
    Sample("explanation", EXPLANATION),
    Sample("German", GERMAN),
    Sample("French", FRENCH),
    Sample("Russian", RUSSIAN),
    Sample("Chinese", CHINESE),
    Sample("Japanese", JAPANESE),
    Sample("Korean", KOREAN),
    Sample("Arabic", ARABIC),
    Sample("Hebrew", HEBREW),
    Sample("Hindi", HINDI),
    Sample("Thai", THAI),
    Sample("emoji", EMOJI),
    Sample("Python", PYTHON),
    Sample("JavaScript", JAVASCRIPT),
    Sample("JSON, pretty", JSON_PRETTY),
    Sample("JSON, minified", JSON_MINIFIED),
    Sample("tables", TABLE),
    Sample("lists", LISTS),
    Sample("LaTeX", LATEX),
    Sample("HTML", HTML),
    Sample("YAML", YAML),
    Sample("diff", DIFF),
    Sample("dialogue", DIALOGUE),
    Sample("base64", _base64(_RANDOM)),
    Sample("log", _log(_RANDOM)),
    Sample("poem with chorus", POEM, repetitive=True),
    Sample("same line again", SAME_LINES, repetitive=True),
    Sample("responses", RESPONSES, repetitive=True),
)
