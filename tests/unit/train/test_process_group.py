"""Finding the network interface on which the training processes meet."""

from offsft.train.process_group import interface_of


def test_an_address_of_this_machine_has_an_interface():
    assert interface_of("127.0.0.1") in ("lo", "lo0")


def test_an_address_of_no_interface_leaves_the_choice_to_gloo():
    assert interface_of("192.0.2.1") is None
