"""Errors other than `ValueError`."""

import pickle

import pytest

from organics import cli, errors

KINDS = [errors.Failed, *errors.Failed.__subclasses__()]


def made(kind, tmp_path):
    more = (7, tmp_path) if kind is errors.Diverged else ()
    return kind("it cannot be done", *more)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_says_it_in_a_line(kind, tmp_path, monkeypatch, capsys):
    def refuse(_):
        raise made(kind, tmp_path)

    monkeypatch.setattr(cli, "_run", refuse)
    assert cli.run(["info"]) == 2
    assert capsys.readouterr().err == "organics: it cannot be done\n"


def test_another_error_is_a_fault_of_the_program(monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.run(["info"]) == 3
    assert "Traceback" in (said := capsys.readouterr().err) and "please report it" in said


@pytest.mark.parametrize("kind", KINDS)
def test_it_survives_the_way_between_processes(kind, tmp_path):
    error = made(kind, tmp_path)
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is kind and str(other) == str(error)
    if kind is errors.Diverged:
        assert (other.step, other.checkpoint) == (7, tmp_path)
