"""What the demo's index holds: how two continents were joined by a wire that broke more than once."""

from __future__ import annotations

PARAGRAPHS = (
    "In the summer of 1858, after several failures, two warships met in the middle of the Atlantic, each with half "
    "of a telegraph cable on board. HMS Agamemnon and USS Niagara joined the ends on 29 July and steamed apart, "
    "paying out as they went. On 5 August the cable was ashore on both sides: at Valentia in Ireland and in Trinity "
    "Bay in Newfoundland, some 2,000 miles away.",
    "On 16 August 1858 Queen Victoria sent her greetings to President James Buchanan. The message had 98 words and "
    "took about sixteen hours: in a cable of that length every pulse of current arrives late and smeared into the "
    "next, and much had to be repeated. A letter by steamer still took some ten days. New York celebrated with "
    "fireworks, which set the roof of its City Hall on fire.",
    "The cable had been made in haste, its copper core lay off centre in places, and it had been stored in the open. "
    "Wildman Whitehouse, the company's electrician, worked it with induction coils of some 2,000 volts; William "
    "Thomson, later Lord Kelvin, had asked for weak currents, read with his mirror galvanometer. The insulation gave "
    "way. After some three weeks, early in September 1858, the cable was dead. An inquiry into all that was known of "
    "submarine cables took until 1861.",
    "In July 1865 the Great Eastern, Brunel's iron ship and by far the largest afloat, left Ireland with a heavier "
    "and better cable, the whole of it in her own tanks. Twice the electricians found a fault by measuring along the "
    "wire, and twice the cable was hauled back and mended. On 2 August, while it was being hauled in for a third "
    "fault, it parted and sank in more than two miles of water, some 600 miles short of Newfoundland. The crew "
    "hooked it several times; each time the tackle broke before it reached the surface.",
    "A year later she tried again. The voyage of 1866 took two weeks, and on 27 July the cable was landed at Heart's "
    "Content in Newfoundland. It carried about eight words a minute, some eighty times as fast as the one of 1858. "
    "But for short spells of repair, Europe and America have been in touch ever since.",
    "Then the ship went back for what had been lost. She dragged her grapnels across the sea bed, and after some "
    "thirty attempts the cable of 1865 was lifted on board on 2 September 1866. When the electricians tested it, a "
    "signal from Ireland answered. A new length was joined to the old end, and on 8 September the second cable was "
    "landed beside the first: begun in one year, broken, and finished in the next.",
)
