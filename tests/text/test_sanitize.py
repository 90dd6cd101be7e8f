"""Masking: what must go, what must stay, and the properties of pseudonyms.

All secrets here are made up. Their well-known prefixes are joined at run time, so that scanners of
repositories do not take them for real ones.
"""

import base64
import pickle
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.errors import BadConfig
from alchemy.text.sanitize import Finding, Sanitizer, default_rules, is_name, load_rules

SANITIZER = Sanitizer(b"salt of the tests")
HEX = "0123456789abcdef" * 8
MIX = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zAcCeFiGkLoMqPsRuTwXyZ" * 3

# id of the rule, text before, secret, text after
SECRETS = [
    ("aws-access-key-id", "key ", "AKIA" + "IOSFODNN7EXAMPLE", " in us-east-1"),
    ("aws-access-key-id", "", "ASIA" + "Y34FZKBOKMUTVV7A", ""),
    (
        "aws-secret-access-key",
        "aws_secret_access_key = ",
        "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
        "\n",
    ),
    ("github-token", "GITHUB=", "ghp_" + MIX[:36], ""),
    ("github-token", "use ", "ghs_" + MIX[:36], "."),
    ("github-fine-grained-token", "", "github_pat_" + MIX[:82], " "),
    ("gitlab-token", "PRIVATE-TOKEN: ", "glpat-" + MIX[:20], ""),
    ("slack-token", "slack ", "xoxb-" + "123456789012-1234567890123-" + MIX[:24], ""),
    ("slack-token", "", "xapp-" + "1-A02-123-" + HEX[:32], ""),
    ("slack-webhook", "https://hooks.slack.com/services/", "T00000000/B00000000/" + MIX[:24], " posts"),
    ("stripe-key", "stripe ", "sk_live_" + MIX[:24], ""),
    ("stripe-key", "", "rk_test_" + MIX[:24], ""),
    ("stripe-webhook-secret", "", "whsec_" + MIX[:32], ""),
    ("google-api-key", "maps?key=", "AIza" + MIX[:35], ""),
    ("google-oauth-secret", "", "GOCSPX-" + MIX[:28], ""),
    ("google-access-token", "", "ya29." + MIX[:60], ""),
    ("openai-key", "OpenAI ", "sk-" + MIX[:48], ""),
    ("openai-key", "", "sk-proj-" + MIX[:60], ""),
    ("anthropic-key", "", "sk-ant-" + "api03-" + MIX[:60], ""),
    ("hugging-face-token", "", "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh", ""),
    ("npm-token", "", "npm_" + MIX[:36], ""),
    ("npmrc-auth-token", "//registry.npmjs.org/:_authToken=", MIX[:36], ""),
    ("pypi-token", "", "pypi-AgE" + "IcHlwaS5vcmc" + MIX[:60], ""),
    ("rubygems-token", "", "rubygems_" + HEX[:48], ""),
    ("docker-hub-token", "", "dckr_pat_" + MIX[:27], ""),
    ("azure-storage-key", "DefaultEndpointsProtocol=https;AccountKey=", MIX[:86] + "==", ";Endpoint"),
    ("azure-sas-signature", "https://x.blob.core.windows.net/c?sv=2022&sig=", MIX[:43] + "%3D", "&se=1"),
    ("azure-client-secret", "secret ", "abc8Q~" + MIX[:34], ""),
    ("airtable-token", "", "pat" + MIX[:14] + "." + HEX[:64], ""),
    ("twilio-key", "", "SK" + HEX[:32], ""),
    ("twilio-key", "account ", "AC" + HEX[16:48], ""),
    ("sendgrid-key", "", "SG." + MIX[:22] + "." + MIX[:43], ""),
    ("mailgun-key", "", "key-" + HEX[:32], ""),
    ("mailchimp-key", "", HEX[:32] + "-us12", ""),
    ("telegram-bot-token", "bot", "123456789:AA" + MIX[:33], ""),
    ("databricks-token", "", "dapi" + HEX[:32], ""),
    ("digitalocean-token", "", "dop_v1_" + HEX[:64], ""),
    ("hashicorp-vault-token", "", "hvs." + MIX[:90], ""),
    ("atlassian-api-token", "", "ATATT3" + MIX[:100], ""),
    ("grafana-token", "", "glsa_" + MIX[:32] + "_" + HEX[:8], ""),
    ("new-relic-key", "", "NRAK-" + "ABCDEFGHIJ1234567890ABCDEFG", ""),
    ("shopify-token", "", "shpat_" + HEX[:32], ""),
    ("alibaba-access-key-id", "", "LTAI" + "5tAbCdEfGh12345678", ""),
    (
        "age-secret-key",
        "",
        "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"[:58],
        "",
    ),
    ("json-web-token", "jwt ", "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0." + MIX[:43], ""),
    ("connection-string", "postgres://", "app:s3cr3t!", "@db.internal:5432/app"),
    ("connection-string", "amqp://", "guest:gu%40est", "@mq/vhost"),
    ("connection-string", "redis://", ":hunter2", "@cache:6379/0"),
    ("connection-string", "jdbc:mysql://", "root:p@ss", "@db:3306/x"),
    ("url-token", "https://", HEX[:32], "@git.corp.com/x.git"),
    ("authorization-header", "Authorization: Basic ", "dXNlcjpwYXNz", "\n"),
    ("authorization-header", "'Authorization': 'Bearer ", MIX[:30], "'"),
    ("authorization-header", '-H "authorization: token ', HEX[:20], '"'),
    ("bearer-token", "sent Bearer ", MIX[:40], " along"),
    ("curl-user", "curl -s -u ", "admin:hunter2", " https://host/x"),
    ("assignment", "password=", "hunter2", ""),
    ("assignment", "db.password = ", "Tr0ub4dor&3"[:9], "\nnext=1"),
    ("assignment", '"password": "', "letmein", '", "a": 1'),
    ("assignment", 'sasl.jaas.config=x username="a" password="', "alice-pw", '";'),
    ("assignment", "db.user=app\ndb.password=", "letmein", "\ndb.pool=4"),
    ("assignment", "API_KEY=", HEX[:32], ""),
    ("assignment", "client_secret: ", "a8f5f167f44f4964e6c998dee827110c", ""),
    ("assignment", "https://x.org/cb?access_token=", MIX[:24], "&state=1"),
    ("assignment", "export DB_PASSWORD=", "'0pen-Sesame'"[1:-1], ""),
    ("command-line-password", "mysqldump --password ", "s3cr3tpw", " db"),
    ("sql-password", "CREATE USER x IDENTIFIED BY '", "tiger77", "';"),
    ("xml-password", "<password>", "topsecret1", "</password>"),
    ("hadoop-xml-password", "<name>ssl.keystore.password</name>\n<value>", "bigdata1", "</value>"),
    ("chinese-password", "登录密码：", "Abc12345", "，请修改"),
    ("shadow-hash", "root:", "$6$" + "rounds$" + MIX[:60], ":19000"),
]

PERSONAL = [
    ("email", "write to ", "jane.doe@example.com", ", please"),
    ("email", "邮箱", "zhang.wei@corp.com.cn", "。"),
    ("email", "mailto:", "a+b@sub.example.co.uk", "?subject=x"),
    ("email", "user=", "jane%40example.org", "&x=1"),
    ("jira-mention", "ask [~", "jdoe", "] about it"),
    ("name-before-address", "Reviewers: ", "Jane Doe", " <none@none>"),
    ("commit-trailer", "Fix\n\nSigned-off-by: ", "jdoe", " <nowhere>"),
    ("international-phone", "call ", "+1 415 555 0132", " now"),
    ("international-phone", "Tel. ", "+44 20 7946 0958", "."),
    ("international-phone", "", "+8613812345678", ""),
    ("international-phone", "(", "+49 (30) 901820", ")"),
    ("international-phone", "", "+56 (0)2 635 4444", "\t"),
    ("named-phone", "Phone: ", "415-555-0132", ""),
    ("named-phone", "手机 ", "13812345678", ""),
    ("named-phone", "座机：", "010-62345678", "，"),
    ("us-phone", "at ", "(415) 555-0132", " after"),
    ("us-phone", "at ", "415-555-0132", " after"),
    ("chinese-mobile", "请拨打", "13812345678", "。"),
    ("chinese-mobile", "no ", "138-1234-5678", ""),
    ("ipv4", "connect to ", "10.0.0.5", ":9092"),
    ("ipv4", "from ", "203.0.113.77", " at noon"),
    ("ipv4", "host ", "8.8.8.8", ""),
    ("ipv4", "ip-worker/", "192.168.12.200", ":50010"),
    ("ipv6", "peer ", "2001:db8:85a3::8a2e:370:7334", " up"),
    ("ipv6", "[", "fe80::1ff:fe23:4567:890a", "]:22"),
    ("credit-card", "card ", "4111 1111 1111 1111", " exp 12/30"),
    ("credit-card", "", "5500005555555559", ""),
    ("credit-card", "amex ", "3782 822463 10005", ""),
    ("iban", "to ", "DE89 3704 0044 0532 0130 00", " today"),
    ("iban", "", "GB29NWBK60161331926819", ""),
    ("us-social-security-number", "SSN ", "536-90-4399", ""),
    ("chinese-resident-id", "身份证", "11010519491231002X", "。"),
]

HARMLESS = [
    "commit 2b70202aaec3db48fd5ff4d996d974444a750a11 on trunk",
    "short sha 2b70202 and 4111111111 builds",
    "git-svn-id: https://svn.apache.org/repos/asf/x/trunk@964373 13f79535-47bb-0310-9956-ffa450edef68",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "md5 d41d8cd98f00b204e9800998ecf8427e",
    "Bump org.xerial:sqlite-jdbc from 3.51.1.0 to 3.51.2.0 (#2607)",
    "snappy-java from 1.1.10.7 to 1.1.10.8.",
    "version 10.14.2.0 of the database",
    "For WebSphere 6.1.0.29+ and Websphere Versions < 6.1.0.35",
    "v1.2.3.4 is out",
    "see section 4.2.1.3 of the manual",
    "tika-1.2.3.4.jar and foo-10.1.2.3-SNAPSHOT",
    "OID 1.3.6.1.4.1.311",
    "2.0.0-alpha.1 and 3.12.0rc1 and 1.0.0+build.5",
    "listen on 127.0.0.1:8080, 0.0.0.0 and localhost",
    "netmask 255.255.255.0",
    "999.300.1.2 is nothing",
    "org.apache.kafka.clients.consumer.KafkaConsumer",
    "java.lang.NullPointerException at Foo.java:123",
    "std::vector<int>::iterator, Foo::bar and abc::def",
    "::1 and :: and 12:34:56",
    "MAC 00:1a:2b:3c:4d:5e",
    "fingerprint SHA256 16:27:AC:A5:76:28:2D:36:63:1B:56:4D:EB:DF:A6:48",
    "KAFKA-19836 blocks HADOOP-18632 and SPARK-54031",
    "2026-08-22T16:04:11-04:00",
    "2020-01-02 10:00:00 +1000 2021-02-03",
    "20200102 103000.123456789",
    "epoch 1700000000000 ms, 1700000000 s, 1700000000123456789 ns",
    "customfield_12310420 9223372036854775807",
    "@@ -12345,7 +123456789,8 @@ def f()",
    "line 1234567, column 4155550132",
    "ticket 123-456-7890 is no number of anybody",
    "order 555-1234",
    "ISBN 978-3-16-148410-0",
    "build 13812345678 passed",
    "4111 1111 1111 1112 fails the checksum",
    "1234567890123456",
    "0000000000000000 and 4444444444444444",
    "decimal 0.4111111111111111",
    "GB82 WEST 1234 5698 7654 31 has a wrong checksum",
    "DE12ABCD and XX00 1234 5678 9012",
    "123-45-678 and 12-345-6789 and 000-12-3456",
    "phase 2019-10-11 to 2019-12-31",
    "110105194912310021 has another check digit",
    "https://issues.apache.org/jira/browse/KAFKA-1?page=2#comment-13524803",
    "https://github.com/apache/tika/commit/2b70202aaec3db48fd5ff4d996d974444a750a11",
    "git@github.com:apache/kafka.git",
    "ssh://host/path and http://host:8080/a:b/c",
    "postgres://user:${PASSWORD}@host/db",
    "@Override @Test(expected = Foo.class)",
    "npm i @types/node@20.1.0 and actions/checkout@v4",
    "icon@2x.png",
    "HTTP/_HOST@EXAMPLE.COM",
    "password = getPassword()",
    "password: String, token: Token, secret: bytes",
    "this.password = password;",
    "connect(user=name, password=letters, port=1) and login(password=phrase)",
    "token = request.token",
    'password = os.environ["DB_PASSWORD"]',
    "password=<your password>",
    "password=${DB_PASSWORD} token={{ token }} secret=$SECRET",
    "password=xxxx, password=****, password=null",
    'password: ""',
    "api_key = YOUR_API_KEY",
    "The token: it must be sent with every request.",
    "max_tokens=4096 token_count: 123456 tokenizer=wordpiece",
    "secretName: my-tls-certificate",
    "passwords are hashed; the secret is kept by the vault",
    "PWD=/home/build/workspace",
    "private key files end with .pem",
    "-----BEGIN CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----",
    "Authorization: Bearer <token>",
    "Bearer authentication is required for everybody",
    "basic authorization is supported",
    "sk-learn and risk-free task-management-system-for-everyone",
    "the hf_transfer package, npm_config_cache and r8_something",
    "AKIAshort and ASIAN food",
    "email me at example dot com",
    "a@b, x@y.1, foo@bar",
    "phone 12345 and call 911",
    "mobile 2019-10-11 12:00:00",
    "1.234.567,89 EUR and 12.34.56",
]


@pytest.mark.parametrize(("rule", "before", "value", "after"), SECRETS + PERSONAL)
def test_a_secret_or_personal_value_is_masked_and_its_surroundings_stay(rule, before, value, after):
    text = f"{before}{value}{after}"
    masked = SANITIZER.mask(text)
    assert rule in {finding.rule for finding in SANITIZER.find(text)}
    assert value not in masked
    assert masked.startswith(before)
    assert after.strip(" <>").strip() in masked or "@" in after or "<" in after
    assert not SANITIZER.leaks(masked)
    assert SANITIZER.mask(masked) == masked


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_a_secret_stays(text):
    assert SANITIZER.find(text) == []
    assert SANITIZER.mask(text) == text


def test_there_are_enough_examples_of_both():
    assert len(SECRETS) + len(PERSONAL) >= 60
    assert len(HARMLESS) >= 60


def test_a_finding_has_the_exact_span_also_after_wide_characters():
    text = "联系人 🙂 jane@example.com。"
    assert SANITIZER.find(text) == [Finding(6, 22, "EMAIL", "email")]
    assert text[6:22] == "jane@example.com"


def test_a_private_key_goes_as_a_whole_with_or_without_its_end():
    body = "\n".join([MIX[:64]] * 4 + ["Aw=="])
    begin, end = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
    whole = f"key:\n{begin}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0011\n\n{body}\n{end}\nafter"
    assert re.fullmatch(r"key:\n<PRIVATE_KEY_[0-9a-f]{8}>\nafter", SANITIZER.mask(whole))
    assert re.fullmatch(r"<PRIVATE_KEY_[0-9a-f]{8}>", SANITIZER.mask(f"{begin}\n{body}"))
    escaped = (begin + "\n" + body + "\n" + end + "\n").replace("\n", "\\n")
    assert MIX[:20] not in SANITIZER.mask(f'{{"private_key": "{escaped}"}}')


def test_the_same_value_has_the_same_pseudonym_and_another_salt_another_one():
    masked = SANITIZER.mask("jane@example.com wrote to joe@example.com and jane@example.com")
    first, second, third = re.findall(r"<EMAIL_[0-9a-f]{8}>", masked)
    assert first == third != second
    assert first not in Sanitizer(b"another").mask("jane@example.com")


def test_pseudonyms_are_never_masked_again():
    text = "password=<SECRET_12345678> <PHONE_4155550132ab> host <IP_0a0b0c0d> <EMAIL_3f2a>@x.org"
    assert SANITIZER.mask(text, ["EMAIL", "SECRET"]) == text


def test_names_of_people_are_masked_on_word_boundaries_only():
    masked = SANITIZER.mask("Jane Doe met Janet; JANE DOE, Jane\nDoe and Jane Doering", ["Jane Doe"])
    token = SANITIZER.person("Jane Doe")
    assert masked == f"{token} met Janet; JANE DOE, {token} and Jane Doering"


def test_a_longer_name_wins_over_a_shorter_one_that_it_contains():
    masked = SANITIZER.mask("Contributor 12 and Contributor 1", ["Contributor 1", "Contributor 12"])
    assert masked == f"{SANITIZER.person('Contributor 12')} and {SANITIZER.person('Contributor 1')}"


def test_chinese_names_are_found_without_spaces_around_them():
    assert SANITIZER.mask("由张伟修复。", ["张伟"]) == f"由{SANITIZER.person('张伟')}修复。"


@pytest.mark.parametrize("name", ["Jane Doe", "José Martínez", "Zoë O'Neil", "张伟", "Ли Минь"])
@pytest.mark.parametrize("form", [str, quote, quote_plus, lambda name: name.replace(" ", "\n")])
def test_a_name_is_found_as_it_stands_in_prose_and_in_links(name, form):
    masked = SANITIZER.mask(f"see /users?by={form(name)}&page=2", ["Somebody Else", name])
    assert masked == f"see /users?by={SANITIZER.person(name)}&page=2"


@pytest.mark.parametrize("name", ["root", "admin", "test", "Jo", "", "dependabot[bot]", "Jenkins", "Mark"])
def test_words_and_role_accounts_are_no_names(name):
    assert not is_name(name)
    assert SANITIZER.mask(f"the {name} user", [name]) == f"the {name} user"


def test_a_name_and_a_secret_in_one_text_are_both_masked():
    masked = SANITIZER.mask("Jane Doe <jane@example.com> set password=hunter2", ["Jane Doe"])
    assert not {"Jane", "Doe", "jane", "hunter2"} & set(re.findall(r"\w+", masked))


def test_a_sanitizer_survives_pickling_for_worker_processes():
    copy = pickle.loads(pickle.dumps(SANITIZER))  # noqa: S301 - our own bytes
    assert copy.mask("jane@example.com") == SANITIZER.mask("jane@example.com")


def test_a_long_hostile_text_is_masked_completely():
    text = (
        "-----BEGIN PRIVATE KEY-----" * 2000
        + "a@" * 50_000
        + "1.1." * 50_000
        + "password=" * 20_000
        + "+1" * 50_000
    )
    masked = SANITIZER.mask(text + " jane@example.com")
    assert "jane" not in masked
    assert not SANITIZER.leaks(masked)


def test_a_lone_surrogate_does_not_move_the_spans():
    assert SANITIZER.mask("\ud800 jane@example.com \udfff").startswith("\ud800 <EMAIL_")


def test_every_rule_has_a_test_or_at_least_a_cheap_hint():
    assert len(default_rules()) >= 80
    assert all(rule.hint for rule in default_rules())


def test_a_wrong_rule_is_named(tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rule]]\nid = 'broken'\nkind = 'X'\nkeywords = ['x']\nregex = '(?P<secret>x'\n")
    with pytest.raises(BadConfig, match="broken"):
        load_rules(rules)


pieces = st.one_of(
    st.sampled_from([before + value + after for _, before, value, after in SECRETS + PERSONAL]),
    st.sampled_from(HARMLESS),
    st.sampled_from(
        [
            "Jane Doe",
            "Jane%20Doe",
            "Jane+Doe",
            "<",
            ">",
            "<EMAIL_3f2a90c1>",
            "@",
            "://",
            "=",
            ":",
            "password",
            " ",
            "\n",
            "1.",
            "+",
        ]
    ),
    st.sampled_from([before + value + after for _, before, value, after in SECRETS + PERSONAL]).map(
        lambda text: base64.b64encode(text.encode()).decode()
    ),
    st.sampled_from([before + value + after for _, before, value, after in SECRETS + PERSONAL]).map(quote),
    st.text(max_size=12),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=12).map("".join))
def test_masking_is_idempotent_and_leaves_no_leak(text):
    masked = SANITIZER.mask(text, ["Jane Doe"])
    assert SANITIZER.mask(masked, ["Jane Doe"]) == masked
    assert not re.search(r"(?<![\w%])Jane(?: |%20|\+)Doe(?!\w)", masked)
    assert SANITIZER.leaks(masked) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, max_size=12).map("".join))
def test_findings_are_in_order_and_do_not_overlap(text):
    findings = SANITIZER.find(text)
    bounds = [position for finding in findings for position in (finding.start, finding.end)]
    assert bounds == sorted(bounds)
    assert all(0 <= finding.start < finding.end <= len(text) for finding in findings)


_ODD = st.sampled_from(
    [
        "password: ",
        "hunter2hunter2 ",
        "mail ada@example.org ",
        "ip 203.0.113.7 ",
        "version ",
        "\n",
        "Noor Berg ",
        "x" * 50,
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(_ODD | st.text(max_size=5), max_size=6).map("".join), max_size=6))
def test_many_texts_are_masked_as_each_of_them_alone(texts: list[str]) -> None:
    sanitizer = Sanitizer(b"salt")
    assert sanitizer.mask_all(texts, ["Noor Berg"]) == [sanitizer.mask(text, ["Noor Berg"]) for text in texts]
