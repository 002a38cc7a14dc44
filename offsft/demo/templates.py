"""Templates of arithmetic word problems: a text with placeholders, and the steps that solve it.

In a text, `{name}` is a person, `{a}` to `{d}` are numbers and `{x}` to `{z}` the results of the steps. A step is
`x = a + b`; the last step's result is the answer. Numbers are drawn so that every result is a positive integer, which
is also what makes the stories possible; they are at least 2, so nouns stay in the plural.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of problem. `held_out` templates never appear among the training problems."""

    text: str
    steps: tuple[str, ...]
    held_out: bool = False


def _t(text: str, *steps: str, held_out: bool = False) -> Template:
    return Template(text, steps, held_out)


TEMPLATES: tuple[Template, ...] = (
    # One step.
    _t("{name} has {a} apples and buys {b} more. How many apples does {name} have now?", "x = a + b"),
    _t("There are {a} red pens and {b} blue pens in a drawer. How many pens are in the drawer?", "x = a + b"),
    _t("{name} read {a} pages on Monday and {b} pages on Tuesday. How many pages did {name} read in all?", "x = a + b"),
    _t("A bus carries {a} people, and {b} more get on. How many people are on the bus now?", "x = a + b"),
    _t("{name} had {a} stamps and gave {b} of them away. How many stamps are left?", "x = a - b"),
    _t("A jar held {a} cookies. {name} ate {b} of them. How many cookies are left in the jar?", "x = a - b"),
    _t("A rope is {a} meters long. {name} cuts off {b} meters. How many meters of rope are left?", "x = a - b"),
    _t("A box holds {a} pencils. How many pencils are in {b} boxes?", "x = a * b"),
    _t("A garden has {a} rows with {b} trees in each row. How many trees are in the garden?", "x = a * b"),
    _t("{name} runs {a} kilometers every day. How many kilometers does {name} run in {b} days?", "x = a * b"),
    _t("One ticket costs {a} dollars. How many dollars do {b} tickets cost?", "x = a * b"),
    _t("{name} shares {a} candies equally among {b} friends. How many candies does each friend get?", "x = a / b"),
    _t(
        "{name} picked {a} plums in the morning and {b} plums in the evening. How many plums is that in all?",
        "x = a + b",
        held_out=True,
    ),
    _t(
        "A shop had {a} lamps and sold {b} of them. How many lamps does the shop still have?",
        "x = a - b",
        held_out=True,
    ),
    _t("Each table in a hall has {a} chairs. How many chairs do {b} tables have?", "x = a * b", held_out=True),
    # Two steps.
    _t(
        "{name} has {a} coins, finds {b} more and then spends {c} of them. How many coins are left?",
        "x = a + b",
        "y = x - c",
    ),
    _t(
        "A box holds {a} eggs. {name} buys {b} boxes and breaks {c} eggs. How many whole eggs are left?",
        "x = a * b",
        "y = x - c",
    ),
    _t(
        "There are {a} shelves with {b} books each, and {c} books on a desk. How many books are there?",
        "x = a * b",
        "y = x + c",
    ),
    _t(
        "{name} buys {a} notebooks for {b} dollars each and a bag for {c} dollars. How many dollars does {name} pay?",
        "x = a * b",
        "y = x + c",
    ),
    _t(
        "A train carries {a} people. At a stop {b} people get off and {c} people get on. How many people are on the train now?",
        "x = a - b",
        "y = x + c",
    ),
    _t(
        "{name} earns {a} dollars an hour and works {b} hours. After that {name} spends {c} dollars. How many dollars are left?",
        "x = a * b",
        "y = x - c",
    ),
    _t(
        "A class has {a} girls and {b} boys. Each child brings {c} flowers. How many flowers are there?",
        "x = a + b",
        "y = x * c",
    ),
    _t(
        "{name} has {a} marbles and {b} bags of {c} marbles each. How many marbles does {name} have?",
        "x = b * c",
        "y = a + x",
    ),
    _t(
        "{name} bakes {a} rolls and {b} buns and packs them into bags of {c}. How many bags are filled?",
        "x = a + b",
        "y = x / c",
    ),
    _t(
        "A farmer has {a} hens and {b} ducks and sells {c} of the birds. How many birds does the farmer keep?",
        "x = a + b",
        "y = x - c",
        held_out=True,
    ),
    _t(
        "A van makes {a} trips with {b} crates each and one more trip with {c} crates. How many crates does it carry in all?",
        "x = a * b",
        "y = x + c",
        held_out=True,
    ),
    _t(
        "{name} saves {a} dollars a week for {b} weeks and buys a game for {c} dollars. How many dollars are left?",
        "x = a * b",
        "y = x - c",
        held_out=True,
    ),
    # Three steps.
    _t(
        "{name} buys {a} pens for {b} dollars each and {c} folders for {d} dollars each. How many dollars does {name} pay?",
        "x = a * b",
        "y = c * d",
        "z = x + y",
    ),
    _t(
        "A theater has {a} rows of {b} seats. On Friday {c} seats stay empty and {d} guests leave early. How many guests stay to the end?",
        "x = a * b",
        "y = x - c",
        "z = y - d",
    ),
    _t(
        "{name} has {a} boxes of {b} cards, gives away {c} cards and gets {d} new ones. How many cards does {name} have now?",
        "x = a * b",
        "y = x - c",
        "z = y + d",
    ),
    _t(
        "A baker makes {a} cakes in the morning and {b} in the afternoon, sells {c} of them, and then bakes {d} more. How many cakes are there now?",
        "x = a + b",
        "y = x - c",
        "z = y + d",
    ),
    _t(
        "{name} fills {a} bottles of {b} liters and {c} cans of {d} liters. How many liters is that in all?",
        "x = a * b",
        "y = c * d",
        "z = x + y",
    ),
    _t(
        "A team scores {a} points in each of {b} games and {c} points in the final, and loses {d} points for a foul. How many points remain?",
        "x = a * b",
        "y = x + c",
        "z = y - d",
    ),
    _t(
        "In a park there are {a} benches with {b} people each and {c} people on the grass. Then {d} people go home. How many people are left?",
        "x = a * b",
        "y = x + c",
        "z = y - d",
    ),
    _t(
        "{name} sells {a} cups of tea for {b} dollars each, pays {c} dollars for milk and {d} dollars for sugar. How many dollars are left?",
        "x = a * b",
        "y = x - c",
        "z = y - d",
        held_out=True,
    ),
    _t(
        "A school orders {a} packs of {b} crayons and {c} packs of {d} markers. How many crayons and markers is that?",
        "x = a * b",
        "y = c * d",
        "z = x + y",
        held_out=True,
    ),
    _t(
        "{name} walks {a} kilometers on each of {b} days, then {c} kilometers, then {d} kilometers. How many kilometers is that in all?",
        "x = a * b",
        "y = x + c",
        "z = y + d",
        held_out=True,
    ),
)

NAMES = (
    "Mia", "Ben", "Lena", "Omar", "Ruth", "Tom", "Ada", "Ivan", "Nora", "Paul", "Zoe", "Luis",
    "Emma", "Noah", "Asha", "Karl", "Ines", "Hugo", "Maya", "Finn", "Vera", "Jack", "Rosa", "Liam",
)  # fmt: skip
