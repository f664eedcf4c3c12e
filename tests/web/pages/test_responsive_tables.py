"""Labels of table cells for the card layout of phones."""

from markupsafe import Markup

from campaigns.web.pages.responsive_tables import label_cells


def test_each_cell_has_the_label_of_its_column() -> None:
    rows = Markup('<tr id="a"><td>x</td><th scope="row">y</th></tr><tr><td colspan="2">both</td><td>z</td></tr>')
    assert label_cells(rows, ["First", {"text": 'Sec"ond'}, "Third"]) == (
        '<tr role="row" id="a"><td role="cell" data-label="First">x</td>'
        '<th role="rowheader" data-label="Sec&#34;ond" scope="row">y</th></tr>'
        '<tr role="row"><td role="cell" data-label="First" colspan="2">both</td>'
        '<td role="cell" data-label="Third">z</td></tr>'
    )


def test_a_hidden_label_stays_hidden_on_cards() -> None:
    assert 'data-label=""' in label_cells(Markup("<td>Why?</td>"), [{"text": "Why?", "hidden": True}])


def test_other_elements_are_unchanged() -> None:
    rows = Markup("<tr><td><time>now</time><thread>a</thread></td></tr>")
    assert (
        label_cells(rows, [])
        == '<tr role="row"><td role="cell" data-label=""><time>now</time><thread>a</thread></td></tr>'
    )
