"""The packages under test are this checkout's own, not namesakes that lie beside it."""

from pathlib import Path

import services
import shared

REPO = Path(__file__).resolve().parents[2]


def test_shared_and_services_are_this_projects_own() -> None:
    for package in (shared, services):
        assert package.__file__ is not None
        assert Path(package.__file__).resolve().is_relative_to(REPO), f"{package.__name__} comes from elsewhere"


def test_no_init_file_makes_a_package_of_the_root_or_of_tests() -> None:
    assert not (REPO / "__init__.py").exists()
    assert not list((REPO / "tests").rglob("__init__.py"))
