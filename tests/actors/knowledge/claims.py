"""Claims about passages, judged by hand: those that a passage supports, and those that it does not.

Among the latter are facts of the world that the passage does not have, other numbers and names, and the
opposite of what it says. The first half was looked at while the measure was made; the second half was not.
"""

from __future__ import annotations

from typing import NamedTuple


class Labelled(NamedTuple):
    passage: str
    supported: tuple[str, ...]
    unsupported: tuple[str, ...]


LABELLED = (
    Labelled(
        "A customer may return a bicycle within 30 days of delivery. The refund goes to the card that was "
        "charged and takes five working days. Custom frames are made to measure and cannot be returned.",
        (
            "Bicycles can be sent back up to 30 days after they were delivered.",
            "The money is paid back to the charged card.",
            "Frames that are made to measure are not taken back.",
        ),
        (
            "Bicycles can be returned within 60 days of delivery.",
            "Customers get a voucher instead of a refund.",
            "Custom frames can be returned as well.",
            "Helmets must be unused.",
        ),
    ),
    Labelled(
        "The office network is split into three zones. Printers live in zone B. If a printer shows the code "
        "E4711, its certificate has expired: renew it at the console and restart the spooler.",
        (
            "The code E4711 means that the printer's certificate has expired.",
            "Printers are in zone B.",
            "The network of the office has three zones.",
        ),
        (
            "The code E4711 means that the printer is out of paper.",
            "Printers are in zone C.",
            "The network has four zones.",
            "Laptops connect over a VPN.",
        ),
    ),
    Labelled(
        "Tomatoes are watered every morning before nine. Basil gets water in the evening. Two hives stand in "
        "the south corner of the roof garden. In May they weigh about 40 kilograms each.",
        (
            "Basil is watered in the evening.",
            "There are two beehives in the south corner.",
            "Each hive weighs around 40 kg in May.",
        ),
        (
            "Basil is watered at noon.",
            "The hives stand in the north corner of the garden.",
            "The garden produces 20 kilograms of honey a year.",
            "Roses are pruned in March.",
        ),
    ),
    Labelled(
        "The harbour opens at six in the morning. Ferries to Kallholm leave every hour, on the hour, and "
        "take 25 minutes. Dogs travel free; bicycles cost 40 crowns.",
        (
            "Ferries to Kallholm leave hourly.",
            "The crossing takes 25 minutes.",
            "There is no charge for dogs.",
        ),
        (
            "The crossing takes 45 minutes.",
            "Bicycles travel free.",
            "Ferries to Norrby leave every two hours.",
            "Tickets are sold at the kiosk by the church.",
        ),
    ),
    Labelled(
        "Marie Curie was born in Warsaw in 1867. She won the Nobel Prize in Physics in 1903 together with "
        "her husband Pierre and Henri Becquerel, and the Nobel Prize in Chemistry in 1911.",
        (
            "Marie Curie's birthplace is Warsaw.",
            "In 1903 she shared the physics prize with Pierre Curie and Becquerel.",
            "She received the Nobel Prize in Chemistry in 1911.",
        ),
        (
            "Marie Curie was born in Paris.",
            "She won the Nobel Prize in Chemistry in 1908.",
            "She died of aplastic anaemia in 1934.",
            "Albert Einstein shared the prize with her.",
        ),
    ),
    Labelled(
        "The backup runs at 02:00 every night and keeps copies for 90 days. Copies are encrypted with a key "
        "that is held by the security team. A restore is asked for by a ticket.",
        (
            "Backups are made every night at 02:00.",
            "The security team holds the key for the backups.",
            "To restore something, open a ticket.",
        ),
        (
            "Backups are kept for a whole year of 365 days.",
            "The copies are not encrypted.",
            "The backup system was bought from a vendor in Denmark.",
            "Restores take less than an hour.",
        ),
    ),
    # from here on: not looked at while the measure was made
    Labelled(
        "The Halden reactor was closed in 2018 after sixty years. It was a boiling heavy water reactor of 25 "
        "megawatts, built into a mountain, and its steam went to a paper mill nearby.",
        (
            "The reactor in Halden was shut down in 2018.",
            "Its steam was used by a nearby paper mill.",
            "It was built inside a mountain.",
        ),
        (
            "The reactor was closed in 2005.",
            "It supplied electricity to the city of Oslo.",
            "The reactor had an output of 250 megawatts.",
            "Its operators went on strike before the closure.",
        ),
    ),
    Labelled(
        "Employees have 28 days of leave a year. Up to five days may be carried over until the end of March. "
        "Leave of more than two weeks at once needs the consent of the head of department.",
        (
            "There are 28 days of annual leave.",
            "Five days of leave can be carried over to March.",
            "The head of department has to agree to leave longer than two weeks.",
        ),
        (
            "Employees have 30 days of leave a year.",
            "Unused leave is paid out in December.",
            "Leave never needs anyone's consent.",
            "Parental leave is granted for fourteen months.",
        ),
    ),
    Labelled(
        "Sourdough needs a starter of flour and water that has fermented for a week. The dough rests "
        "overnight in the refrigerator and is baked at 250 degrees for 45 minutes in a cast iron pot.",
        (
            "A sourdough starter ferments for a week.",
            "The dough is left in the fridge overnight.",
            "The bread is baked in a cast iron pot.",
        ),
        (
            "The bread is baked at 180 degrees.",
            "The dough contains honey and milk.",
            "Yeast has to be added to the starter.",
            "Rye bread was invented in Egypt.",
        ),
    ),
    Labelled(
        "The Orsk meter sends its readings by radio once an hour. Its battery lasts ten years. When the seal "
        "is broken the meter reports an alarm and goes on counting.",
        (
            "The meter transmits readings every hour by radio.",
            "Its battery has a life of ten years.",
            "A broken seal raises an alarm.",
        ),
        (
            "The battery lasts three years.",
            "The meter stops counting when its seal is broken.",
            "The meter is made in Switzerland.",
            "Readings are sent over the mobile network to a satellite.",
        ),
    ),
    Labelled(
        "In 1953 Edmund Hillary and Tenzing Norgay were the first to reach the summit of Mount Everest. The "
        "expedition was led by John Hunt and approached over the South Col.",
        (
            "Hillary and Tenzing Norgay reached the top of Everest first, in 1953.",
            "John Hunt was the leader of the expedition.",
            "They climbed by way of the South Col.",
        ),
        (
            "George Mallory led the expedition.",
            "They reached the summit in 1963.",
            "The climbers used no oxygen at all.",
            "Hillary later became ambassador to India.",
        ),
    ),
    Labelled(
        "The library lends laptops for four hours to holders of a card. Printing costs ten cents a page, "
        "colour thirty. Meeting rooms are booked at the desk and are free of charge.",
        (
            "Card holders can borrow a laptop for four hours.",
            "A page in colour costs thirty cents.",
            "Meeting rooms cost nothing.",
        ),
        (
            "Laptops are lent for two weeks.",
            "Printing in colour is not possible.",
            "Meeting rooms are rented for fifty euros.",
            "The library was founded by a merchant.",
        ),
    ),
)
