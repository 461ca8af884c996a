import pytest
from pydantic import ValidationError

from service.errors import ConfigurationInvalid, Forbidden, Unauthorized
from service.http.security import LOOPBACK_NAMES, Keys, digest, digests, for_listening, is_loopback
from service.settings import Settings

READER, WRITER = "reader-0123456789", "writer-0123456789"


@pytest.fixture
def keys():
    return Keys(digests([READER]), digests([WRITER, "another-writer-01"]))


def test_the_hash_is_sha256_of_the_key():
    # printf abc | sha256sum
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_key_and_its_hash_are_the_same():
    assert digests([WRITER]) == digests([f"sha256:{digest(WRITER)}"])


@pytest.mark.parametrize("key", ["short", "", "sha256:12", "sha256:" + "G" * 64])
def test_weak_keys_are_refused_and_not_repeated(key):
    with pytest.raises(ValueError, match="at least 16 characters") as caught:
        digests([key])
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_readers_read_and_writers_write(keys, scheme):
    keys.check(f"{scheme} {READER}", writes=False)
    keys.check(f"{scheme} {WRITER}", writes=False)
    keys.check(f"{scheme} {WRITER}", writes=True)
    with pytest.raises(Forbidden):
        keys.check(f"{scheme} {READER}", writes=True)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Basic {WRITER}", WRITER, f"Bearer {WRITER}x"])
def test_anything_else_is_nobody(keys, header):
    for writes in (False, True):
        with pytest.raises(Unauthorized):
            keys.check(header, writes)


def test_a_hash_is_not_a_key(keys):
    with pytest.raises(Unauthorized):
        keys.check(f"Bearer {digests([WRITER])[0]}", writes=True)


def test_with_only_readers_nobody_writes():
    with pytest.raises(Forbidden):
        Keys(read=digests([READER])).check(f"Bearer {READER}", writes=True)


def test_without_keys_everybody_may():
    Keys().check("", writes=True)


def test_every_known_hash_is_compared(keys, monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(b) or a == b)
    keys.check(f"Bearer {WRITER}", writes=True)
    assert sorted(compared) == sorted(keys.read + keys.write)


def test_settings_hold_hashes_only(monkeypatch):
    monkeypatch.setenv("AEROFIX_READ_KEYS", f"{READER}, sha256:{digest(WRITER)}")
    settings = Settings()
    assert settings.read_keys == digests([READER, WRITER])
    assert READER not in repr(settings)


def test_a_weak_key_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("AEROFIX_WRITE_KEYS", "hunter2")
    with pytest.raises(ValidationError, match="write_keys"):
        Settings()


def test_a_file_of_keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# the office\nread {READER}\n\nwrite sha256:{digest(WRITER)}\n")
    keys = Keys.of(Settings(keys_file=path, read_keys=("third-0123456789x",)))
    assert keys == Keys(digests(["third-0123456789x", READER]), digests([WRITER]))


@pytest.mark.parametrize(
    ("text", "named"),
    [("admin x", "line 1"), ("\nread a b", "line 2"), ("write short", "16 characters"), ("#\n", "no key")],
)
def test_a_bad_file_of_keys(tmp_path, text, named):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigurationInvalid, match=named):
        Keys.of(Settings(keys_file=path))


def test_a_file_of_keys_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationInvalid, match="cannot be read"):
        Keys.of(Settings(keys_file=tmp_path / "none"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "map.example", ""])
def test_not_loopback(host):
    assert not is_loopback(host)


def test_loopback_needs_no_key_and_takes_only_its_names():
    assert for_listening(Settings()).allowed_hosts == LOOPBACK_NAMES
    assert for_listening(Settings(host="127.0.0.2")).allowed_hosts == (*LOOPBACK_NAMES, "127.0.0.2")
    assert for_listening(Settings(allowed_hosts=("map.local",))).allowed_hosts == ("map.local",)


def test_other_addresses_need_keys_or_a_word():
    with pytest.raises(ConfigurationInvalid, match="AEROFIX_WRITE_KEYS") as caught:
        for_listening(Settings(host="0.0.0.0"))
    assert "AEROFIX_INSECURE=true" in caught.value.detail
    assert for_listening(Settings(host="0.0.0.0", write_keys=(WRITER,))).allowed_hosts == ()
    assert for_listening(Settings(host="0.0.0.0", insecure=True)).insecure
