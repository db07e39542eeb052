from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from aioserve.errors import BootError
from aioserve.importer import load_app, trim

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path):
    """A directory to import from, with no trace left in this process."""
    path, modules = sys.path[:], set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(project: Path, name: str, source: str) -> None:
    file = project / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)


def refused(target: str, project: Path, *, factory: bool = False) -> BootError:
    with pytest.raises(BootError) as caught:
        load_app(target, factory=factory, app_dir=str(project))
    return caught.value


def test_an_attribute_of_a_module_is_loaded(project):
    write(project, "shop_a.py", "async def app(scope, receive, send): ...")
    assert load_app("shop_a:app", factory=False, app_dir=str(project)).__name__ == "app"


def test_dotted_modules_and_attributes_are_followed(project):
    write(project, "shop_b/__init__.py", "")
    write(project, "shop_b/web.py", "class Holder:\n    def app(scope): ...\n")
    assert load_app("shop_b.web:Holder.app", factory=False, app_dir=str(project)).__name__ == "app"


def test_the_working_directory_is_searched_first_without_app_dir(project, monkeypatch):
    monkeypatch.chdir(project)
    write(project, "shop_c.py", "def app(): ...")
    load_app("shop_c:app", factory=False, app_dir="")
    assert sys.path[0] == str(project)


def test_the_place_is_put_on_the_path_only_once(project):
    write(project, "shop_v.py", "app = print")
    for _ in range(2):
        load_app("shop_v:app", factory=False, app_dir=str(project))
    assert sys.path.count(str(project)) == 1


def test_a_missing_module_like_no_other_has_no_suggestion(project):
    (project / "folder").mkdir()
    assert str(refused("shop_w:app", project)).endswith("or where else Python looks")


def test_a_package_whose_folder_has_gone_has_no_suggestion(project):
    write(project, "shop_x/__init__.py", f"__path__ = [{str(project / 'gone')!r}]")
    assert str(refused("shop_x.web:app", project)) == f"there is no module 'shop_x.web' in {project}/gone"


def test_a_factory_is_called(project):
    write(project, "shop_d.py", "def make():\n    def app(scope): ...\n    return app\n")
    assert load_app("shop_d:make", factory=True, app_dir=str(project)).__name__ == "app"


def test_a_missing_module_is_named_with_the_place_and_a_suggestion(project):
    write(project, "shop_main.py", "app = print")
    error = refused("shop_mian:app", project)
    assert "there is no module 'shop_mian'" in str(error)
    assert str(project) in str(error)
    assert "did you mean 'shop_main'?" in str(error)
    assert error.detail == ""


def test_a_missing_module_of_a_package_is_suggested_with_its_package(project):
    write(project, "shop_e/__init__.py", "")
    write(project, "shop_e/views.py", "")
    assert "did you mean 'shop_e.views'?" in str(refused("shop_e.veiws:app", project))


def test_a_module_in_a_subdirectory_leads_to_app_dir(project):
    write(project, "src/shop_f.py", "app = print")
    assert "src/shop_f.py exists: pass --app-dir src" in str(refused("shop_f:app", project))


def test_a_module_that_is_no_package_is_said_to_be_none(project):
    write(project, "shop_g.py", "app = print")
    assert "'shop_g' is a module, not a package" in str(refused("shop_g.app:app", project))


def test_a_missing_import_inside_the_module_is_told_from_the_module_itself(project):
    write(project, "shop_h.py", "import no_such_thing_at_all\napp = print\n")
    error = refused("shop_h:app", project)
    assert str(error) == "cannot import 'shop_h': it imports 'no_such_thing_at_all', which is not installed"
    assert f'File "{project}/shop_h.py", line 1' in error.detail


def test_a_module_that_imports_a_missing_sibling_of_its_own_name_is_the_one_at_fault(project):
    write(project, "shop_i/__init__.py", "import shop_i.web.deep")
    write(project, "shop_i/web/__init__.py", "")
    assert "it imports 'shop_i.web.deep'" in str(refused("shop_i.web.deep:app", project))


def test_an_exception_at_import_shows_only_the_users_frames(project):
    write(project, "shop_j.py", "import shop_settings\napp = print\n")
    write(project, "shop_settings.py", "DEBUG = int('yes')\n")
    error = refused("shop_j:app", project)
    assert str(error).startswith("cannot import 'shop_j': ValueError: invalid literal")
    files = [line.split('"')[1] for line in error.detail.splitlines() if line.startswith("  File ")]
    assert files == [f"{project}/shop_j.py", f"{project}/shop_settings.py"]


def test_a_syntax_error_shows_file_line_and_caret(project):
    write(project, "shop_k.py", "x = 1\ndef app(:\n")
    error = refused("shop_k:app", project)
    assert str(error) == f"cannot import 'shop_k': syntax error in {project}/shop_k.py, line 2"
    assert "def app(:" in error.detail
    assert "^" in error.detail


def test_a_module_that_exits_is_reported(project):
    write(project, "shop_l.py", "raise SystemExit('no database')")
    assert "SystemExit: no database" in str(refused("shop_l:app", project))


def test_a_missing_attribute_comes_with_a_suggestion_and_the_file(project):
    write(project, "shop_m.py", "application = print")
    error = str(refused("shop_m:aplication", project))
    assert f"shop_m ({project}/shop_m.py) has no attribute 'aplication'; did you mean 'application'?" == error


def test_a_missing_attribute_unlike_all_others_leads_to_a_usual_name(project):
    write(project, "shop_n.py", "app = print\nzebra = 1\n")
    assert "did you mean 'app'?" in str(refused("shop_n:wsgi_entry_point", project))


def test_a_missing_attribute_with_nothing_like_it_has_no_suggestion(project):
    write(project, "shop_o.py", "zebra = 1\n")
    assert str(refused("shop_o:app.inner", project)).endswith("has no attribute 'app'")


def test_an_attribute_whose_lookup_breaks_is_reported(project):
    write(project, "shop_p.py", "def __getattr__(name):\n    raise RuntimeError('lazy')\n")
    error = refused("shop_p:app", project)
    assert "cannot get 'app' of shop_p:app: RuntimeError: lazy" in str(error)
    assert "shop_p.py" in error.detail


def test_what_cannot_be_called_is_refused_with_its_type(project):
    write(project, "shop_q.py", "app = 42\n")
    assert "shop_q:app is an int, which cannot be called" in str(refused("shop_q:app", project))


def test_a_factory_that_raises_is_reported_with_its_frames(project):
    write(project, "shop_r.py", "def make():\n    raise KeyError('DATABASE_URL')\n")
    error = refused("shop_r:make", project, factory=True)
    assert "the factory shop_r:make failed: KeyError: 'DATABASE_URL'" in str(error)
    assert "importer.py" not in error.detail
    assert "in make" in error.detail


def test_an_async_factory_is_refused(project):
    write(project, "shop_s.py", "async def make(): ...")
    assert "is an async function" in str(refused("shop_s:make", project, factory=True))


def test_a_factory_that_returns_nothing_is_refused(project):
    write(project, "shop_t.py", "def make(): ...")
    assert "returned a NoneType" in str(refused("shop_t:make", project, factory=True))


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("", "no application was named"),
        ("main", "'main' is not module:attribute, such as main:app"),
        (":app", "such as main:app"),
        ("main:", "such as main:app"),
        ("main.py:app", "is a path: name a module instead, such as main:app"),
        ("./src/main.py:app", "such as src.main:app"),
        ("main:app()", "both are names with dots"),
    ],
)
def test_a_target_in_another_form_is_corrected(project, target, part):
    assert part in str(refused(target, project))


def test_a_missing_app_dir_is_named(tmp_path):
    assert f"there is no directory {tmp_path}/gone (--app-dir)" in str(refused("main:app", tmp_path / "gone"))


def test_trim_keeps_causes_and_the_members_of_groups(project):
    write(
        project,
        "shop_u.py",
        "def fail():\n    try:\n        1 / 0\n    except ZeroDivisionError as error:\n"
        "        raise ExceptionGroup('many', [ValueError('one')]) from error\n",
    )
    fail = load_app("shop_u:fail", factory=False, app_dir=str(project))
    with pytest.raises(ExceptionGroup) as caught:
        fail()
    text = trim(caught.value)
    assert "ZeroDivisionError" in text
    assert "ValueError: one" in text


def test_trim_survives_errors_that_cause_each_other():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert "ValueError: two" in trim(one)


def test_the_examples_frames_are_the_users(monkeypatch):
    import aioserve.example

    code = compile("raise ValueError('inside')", aioserve.example.__file__, "exec")
    with pytest.raises(ValueError, match="inside") as caught:
        exec(code)
    assert "example.py" in trim(caught.value)
