"""Units by cookie, by claim and by slice: who is whom, byte-equal to Python, and who may ask at all."""

import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from emberline import process
from emberline.assignment import assign, layer_bucket
from emberline.experiment import Status, load_experiment, write_status
from emberline.exposure import hash_unit, load_key
from emberline.process import wait_until

VARIANTS = [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}]
KEYS = {"shop": "s" * 20, "search": "q" * 32}


def write(router, name: str, weight: int = 5000, **spec) -> str:
    """An experiment that ramps; returns its configuration version."""
    router.experiments.mkdir(parents=True, exist_ok=True)
    document = {
        "apiVersion": "emberline.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "model": "digits",
            "variants": VARIANTS,
            "primary": {"metric": "correct"},
            "ramp": [{"weight": 5000}],
            **spec,
        },
    }
    (router.experiments / f"{name}.yaml").write_text(yaml.safe_dump(document))
    write_status(router.experiments, name, Status(phase="Ramping", weights={"int8": weight, "fp32": 10_000 - weight}))
    return load_experiment(router.experiments / f"{name}.yaml").config_version


def await_version(router, version: str) -> None:
    def told() -> bool:
        answer = router.client.get(f"{router.url}/predictions/digits")
        return version in answer.headers.get("x-config-version", "")

    wait_until(told, 10, f"{version} is in force")


def arm(weight: int, salt: str, unit: str) -> str:
    return ("int8", "fp32")[assign(salt, unit, (weight, 10_000 - weight))]


def test_a_cookie_is_minted_once_and_names_the_unit_from_then_on(start_router):
    router = start_router(weight=None)
    await_version(router, write(router, "by-cookie", unit={"cookie": "visitor"}))
    ask = router.client.build_request
    units = {}
    for _ in range(40):
        router.client.cookies.clear()
        first = router.post("/predictions/digits")
        assert first.status_code == 200
        minted = first.headers["set-cookie"]
        assert minted.startswith("visitor=")
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in minted.split(";")}
        unit = minted.partition("=")[2].partition(";")[0]
        units[unit] = first.headers["x-variant"]
    router.client.cookies.clear()
    for unit, variant in units.items():
        assert variant == arm(5000, "by-cookie", unit)
        for cookies in (f"visitor={unit}", f"a=1; visitor={unit}; b=2", f"visitor={unit}; visitor=other; xvisitor=no"):
            again = router.client.send(
                ask("POST", f"{router.url}/predictions/digits", content=b"{}", headers={"cookie": cookies})
            )
            assert again.headers["x-variant"] == variant
            assert "set-cookie" not in again.headers
    key = load_key(router.folder / "data")
    rows = router.await_rows(160, columns="unit, variant")
    assert {row[0] for row in rows} == {hash_unit(key, unit) for unit in units}, "and the log has the same unit"
    assert len(set(rows)) == len(units)
    for wrong in ("visitor=", f"visitor={'x' * 257}", "visitor=a b"):
        reply = router.post("/predictions/digits", cookie=wrong)
        assert (reply.status_code, reply.json()["field"]) == (400, "cookie visitor")
        assert "set-cookie" not in reply.headers


def test_of_a_header_sent_twice_the_first_is_the_unit_in_hash_and_log(start_router):
    """Or a client could have one unit seen in both variants, which makes an experiment invalid."""
    router = start_router(weight=5000)
    for index in range(20):
        request = router.client.build_request("POST", f"{router.url}/predictions/digits", content=b"{}")
        request.headers = httpx.Headers([*request.headers.raw, ("x-unit-id", "same"), ("x-unit-id", f"u{index}")])
        answer = router.client.send(request)
        assert answer.headers["x-variant"] == arm(5000, "digits-int8", "same")
    key = load_key(router.folder / "data")
    assert set(router.await_rows(20, columns="unit")) == {(hash_unit(key, "same"),)}


@pytest.fixture(scope="module")
def layered(start_router):
    router = start_router("--holdout", "0.1", weight=None)
    write(router, "first", weight=3000, layer={"name": "ranking", "buckets": [0, 4000]})
    version = write(router, "second", weight=7000, layer={"name": "ranking", "buckets": [5000, 8000]})
    await_version(router, version)
    return router


def expected(unit: str) -> tuple[str, str]:
    """Configuration (its first word) and variant of a unit, computed in Python."""
    if layer_bucket("holdout", unit) < 1000:
        return "default", "default"
    bucket = layer_bucket("ranking", unit)
    if bucket < 4000:
        return "first", arm(3000, "first", unit)
    if 5000 <= bucket < 8000:
        return "second", arm(7000, "second", unit)
    return "default", "default"


def test_layers_and_holdout_divide_ten_thousand_units_as_python_does(layered):
    units = [f"person-{n}" for n in range(9_000)] + [f"Ünïcode 😀 {n}" for n in range(1_000)]
    answers = layered.ask([(unit, {"n": 1}) for unit in units])
    assert {answer.status for answer in answers} == {200}
    got = [(answer.headers["x-config-version"].partition("-")[0], answer.headers["x-variant"]) for answer in answers]
    assert got == [expected(unit) for unit in units]
    counts = {name: sum(config == name for config, _ in got) for name in ("first", "second", "default")}
    assert 3300 < counts["first"] < 3900
    assert 2400 < counts["second"] < 3000
    key = load_key(layered.folder / "data")
    held = {hash_unit(key, unit) for unit in units if layer_bucket("holdout", unit) < 1000}
    seen = layered.await_rows(
        len(held) + counts["first"] + counts["second"], columns="unit, experiment, variant, version"
    )
    assert {row[0] for row in seen if row[1] == "holdout"} == held
    assert {row[2:] for row in seen if row[1] == "holdout"} == {("default", "1.0")}


def test_a_divided_model_refuses_unusable_units_as_any_other(layered):
    for unit in (None, b"", b"x" * 257, b"\xff\xfe"):
        reply = (
            layered.post("/predictions/digits") if unit is None else layered.post("/predictions/digits", x_unit_id=unit)
        )
        assert (reply.status_code, reply.json()["field"]) == (400, "x-unit-id")
    assert layered.post("/predictions/digits?x=1", x_unit_id="u").status_code == 200
    told = layered.client.get(f"{layered.url}/predictions/digits")
    assert told.status_code == 405
    assert len(told.headers["x-config-version"].split(", ")) == 3


def test_slices_that_overlap_are_refused_and_the_first_stays(layered):
    write(layered, "third", layer={"name": "ranking", "buckets": [3999, 5000]})
    wait_until(lambda: "third: spec.layer is" in layered.log, 10, "the refusal")
    assert layered.post("/predictions/digits", x_unit_id="u").status_code == 200
    (layered.experiments / "third.yaml").unlink()
    (layered.experiments / "third.status.json").unlink()


def make_certificate(folder, name: str) -> None:
    """A certificate of its own authority, replaced as a whole."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    built = (
        builder.not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, content in (("tls.key", private), ("tls.crt", built.public_bytes(pem))):
        (folder / f".{file}").write_bytes(content)
        (folder / f".{file}").replace(folder / file)


@pytest.fixture(scope="module")
def guarded(start_router, tmp_path_factory):
    """A router with TLS, API keys, tokens and a limit of each unit; the unit is the token's subject."""
    folder = tmp_path_factory.mktemp("secrets")
    make_certificate(folder, "first.test")
    (folder / "keys.yaml").write_text(yaml.safe_dump(KEYS))
    key = rsa.generate_private_key(65_537, 2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    (folder / "jwks.json").write_text(json.dumps({"keys": [{**public, "kid": "1", "alg": "RS256", "use": "sig"}]}))
    options = ["--tls-cert", folder / "tls.crt", "--tls-key", folder / "tls.key", "--api-keys", folder / "keys.yaml"]
    options += ["--jwks", folder / "jwks.json", "--jwt-issuer", "us", "--jwt-audience", "models"]
    options += ["--unit-requests-per-s", "3"]
    router = start_router(*map(str, options), weight=None)
    router.secrets, router.signer = folder, key
    router.secure = httpx.Client(base_url=f"https://127.0.0.1:{router.port}", verify=False, timeout=10)
    return router


def token(router, **claims) -> str:
    told = {"iss": "us", "aud": "models", "exp": int(time.time()) + 300, "sub": "person-1", **claims}
    return jwt.encode(told, router.signer, algorithm="RS256", headers={"kid": "1"})


def ask(router, **headers) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return router.secure.post("/predictions/digits", content=b'{"n": 1}', headers=named)


def test_who_has_no_key_or_no_good_token_is_401_and_health_is_told_to_all(guarded):
    good = {"x_api_key": KEYS["shop"], "authorization": f"Bearer {token(guarded)}"}
    assert ask(guarded, **good).status_code == 200
    for bad in (
        {},
        {"x_api_key": KEYS["shop"]},
        {"authorization": good["authorization"]},
        {**good, "x_api_key": "x" * 20},
        {**good, "authorization": f"Bearer {token(guarded, iss='them')}"},
        {**good, "authorization": f"Bearer {token(guarded, exp=1)}"},
    ):
        reply = ask(guarded, **bad)
        assert reply.status_code == 401, bad
        assert "key or a token" in reply.json()["error"]
    theirs = ask(guarded, **{**good, "authorization": f"Bearer {token(guarded, aud='others')}"})
    assert (theirs.status_code, theirs.json()["error"]) == (403, "the token is meant for somebody else")
    for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert guarded.secure.get(path).status_code == 200
    for path in ("/v1/outcomes", "/v2/models/digits/infer"):
        assert guarded.secure.post(path, content=b"{}").status_code == 401
    assert guarded.paper_path.stat().st_size
    bootstraps = list((guarded.folder / "state/envoy").glob("bootstrap*.json"))
    assert {path.stat().st_mode & 0o777 for path in bootstraps} == {0o600}, "keys are in it"


def test_a_tokens_claim_is_the_unit_and_each_unit_has_its_own_limit(guarded):
    version = write(guarded, "by-claim", unit={"jwt_claim": "sub"})
    key = {"x_api_key": KEYS["search"]}

    def told() -> bool:
        answer = guarded.secure.get(
            "/predictions/digits", headers={"x-api-key": KEYS["shop"], "authorization": f"Bearer {token(guarded)}"}
        )
        return answer.headers.get("x-config-version") == version

    wait_until(told, 10, "the experiment")
    for number in range(20):
        forged = {"x_ember_claim_sub": "somebody else"}
        reply = ask(guarded, **key, **forged, authorization=f"Bearer {token(guarded, sub=f'person-{number}')}")
        assert reply.headers["x-variant"] == arm(5000, "by-claim", f"person-{number}")
    greedy = [ask(guarded, **key, authorization=f"Bearer {token(guarded, sub='greedy')}") for _ in range(12)]
    refused = [reply for reply in greedy if reply.status_code == 429]
    assert refused
    assert refused[0].headers["retry-after"] == "1"
    assert ask(guarded, **key, authorization=f"Bearer {token(guarded, sub='modest')}").status_code == 200
    nobody = ask(guarded, **key, authorization=f"Bearer {token(guarded, sub='')}")
    assert (nobody.status_code, nobody.json()["field"]) == (400, "claim sub")


def served_name(port: int) -> str:
    import socket
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, context.wrap_socket(plain) as secured:
        certificate = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True))
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_an_answer_to_a_long_request_by_http_2_reaches_its_client_though_it_is_refused(guarded, tmp_path):
    def answer(body, *headers: str) -> tuple[int, str, dict]:
        command = ["curl", "-sk", "--http2", *(part for header in headers for part in ("-H", header))]
        command += ["-o", tmp_path / "answer", "-w", "%{http_code} %{http_version}"]
        command += [f"https://127.0.0.1:{guarded.port}/predictions/digits", "--data-binary", f"@{body}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr}"
        status, version = done.stdout.split()
        return int(status), version, json.loads((tmp_path / "answer").read_bytes())

    body = tmp_path / "body"
    body.write_bytes(b" " * 3_000_000 + b"{}")
    good = f"x-api-key: {KEYS['shop']}", f"authorization: Bearer {token(guarded, sub='hurried')}"
    for headers in ((), good[:1], good[1:]):
        status, version, told = answer(body, *headers)
        assert (status, version) == (401, "2")
        assert "key or a token" in told["error"]
    statuses = [answer(body, *good)[0] for _ in range(12)]
    assert 429 in statuses
    assert set(statuses) <= {200, 429}


def test_a_replaced_certificate_is_served_at_once(guarded):
    assert served_name(guarded.port) == "first.test"
    make_certificate(guarded.secrets, "second.test")
    wait_until(lambda: served_name(guarded.port) == "second.test", 10, "the new certificate")


def test_a_hangup_while_key_and_certificate_are_no_pair_restarts_nothing_and_says_so(guarded):
    before, key = guarded.paper["envoy_pid"], guarded.secrets / "tls.key"
    mine = key.read_bytes()
    (guarded.secrets / ".tls.key").write_text("half a key")
    (guarded.secrets / ".tls.key").replace(key)
    os.kill(guarded.child.pid, process.signal.SIGHUP)
    told = "not restarted, what was in force stays: route: --tls-cert and --tls-key"
    wait_until(lambda: told in guarded.log, 20, "the refusal")
    assert guarded.paper["envoy_pid"] == before
    assert served_name(guarded.port) == "second.test"
    (guarded.secrets / ".tls.key").write_bytes(mine)
    (guarded.secrets / ".tls.key").replace(key)


def test_a_hangup_with_a_file_of_token_keys_that_holds_none_restarts_nothing_and_says_so(guarded):
    before, keys = guarded.paper["envoy_pid"], guarded.secrets / "jwks.json"
    mine = keys.read_bytes()
    keys.write_text("{}")
    os.kill(guarded.child.pid, process.signal.SIGHUP)
    wait_until(lambda: "not restarted, what was in force stays: route: --jwks is" in guarded.log, 20, "the refusal")
    assert guarded.paper["envoy_pid"] == before
    keys.write_bytes(mine)


def test_a_hangup_reads_api_keys_again_without_a_gap(guarded):
    good = f"Bearer {token(guarded, sub='patient')}"
    fresh = "fresh-" * 4
    (guarded.secrets / "keys.yaml").write_text(yaml.safe_dump({"shop": fresh}))
    assert ask(guarded, x_api_key=fresh, authorization=good).status_code == 401
    before = guarded.paper["envoy_pid"]
    os.kill(guarded.child.pid, process.signal.SIGHUP)
    wait_until(lambda: guarded.paper["envoy_pid"] != before, 20, "the successor")
    wait_until(lambda: ask(guarded, x_api_key=fresh, authorization=good).status_code in (200, 429), 10, "the new key")
    guarded.secure.close()
    guarded.secure = httpx.Client(base_url=f"https://127.0.0.1:{guarded.port}", verify=False, timeout=10)
    assert ask(guarded, x_api_key=KEYS["shop"], authorization=good).status_code == 401, "the old one counts no more"
