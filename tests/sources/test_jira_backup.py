"""`entities.xml` of a Jira backup: the same drafts as from REST, in bounded memory, whatever is missing."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

from alchemy import sources
from alchemy.records import Draft, RawObject
from alchemy.settings import CleanOptions
from tests.sources.conftest import Read
from tests.sources.test_archives import zipped

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<entity-engine-xml date="1764925200000">\n'
FIRST = """
 <Action id="10101" issue="10002" author="JIRAUSER10100" type="comment" body="Then *limit* it."
  created="2025-12-03 11:00:00.0" updated="2025-12-03 11:00:00.0"/>
 <Action id="10100" issue="10002" author="praman" type="comment" created="2025-12-03 10:00:00.0">
  <body><![CDATA[See:
{code}
send(payload);
{code}]]></body>
 </Action>
 <Action id="10102" issue="10002" author="praman" type="worklog" body="Not a comment"/>
 <ApplicationUser id="10100" userKey="JIRAUSER10100" lowerUserName="owen"/>
 <ChangeGroup id="10200" issue="10002" author="praman" created="2025-12-02 12:00:00.0"/>
 <ChangeGroup id="10201" issue="10002" author="JIRAUSER10100" created="2025-12-04 09:12:00.0"/>
 <ChangeItem id="10301" group="10201" fieldtype="jira" field="status" oldvalue="3" oldstring="In Progress"
  newvalue="5" newstring="Resolved"/>
 <ChangeItem id="10300" group="10200" fieldtype="jira" field="status" oldvalue="1" oldstring="Open"
  newvalue="3" newstring="In Progress"/>
 <ChangeItem id="10302" group="10201" fieldtype="jira" field="resolution" newvalue="1" newstring="Fixed"/>
 <Component id="10400" project="10000" name="uplink"/>
 <FileAttachment id="10500" issue="10002" mimetype="image/png" filename="a.png" author="praman"/>
"""
ISSUES = """
 <Issue id="10001" key="HAUL-100" number="100" project="10000" summary="Uplink" type="2" status="1"
  created="2025-11-01 09:00:00.0" updated="2025-11-01 09:00:00.0" votes="0" watches="0"/>
 <Issue id="10002" key="HAUL-104" number="104" project="10000" reporter="praman" assignee="JIRAUSER10100"
  creator="praman" type="1" summary="Oversized payloads hang" priority="3" resolution="1" status="5"
  created="2025-12-02 09:12:00.0" updated="2025-12-04 13:31:44.123" resolutiondate="2025-12-04 09:12:00.0"
  votes="3" watches="4" workflowId="1">
  <description><![CDATA[It *hangs* at 3 MB.

See [~owen].]]></description>
  <environment><![CDATA[Bonn]]></environment>
 </Issue>
 <Issue id="10003" number="109" project="10000" summary="Big messages stop" type="1" status="1"
  created="2025-12-02 09:12:00.0"/>
"""
LAST = """
 <IssueLink id="10600" linktype="10700" source="10001" destination="10002" sequence="0"/>
 <IssueLink id="10601" linktype="10701" source="10003" destination="10002"/>
 <IssueLink id="10602" linktype="10701" source="10002" destination="99999"/>
 <IssueLinkType id="10700" linkname="jira_subtask_link" inward="jira_subtask_inward"
  outward="jira_subtask_outward" style="jira_subtask"/>
 <IssueLinkType id="10701" linkname="Duplicate" inward="is duplicated by" outward="duplicates"/>
 <IssueType id="1" name="Bug"/>
 <IssueType id="2" name="Task"/>
 <Label id="10800" issue="10002" label="edge"/>
 <Label id="10801" fieldid="10900" issue="10002" label="of a custom field"/>
 <NodeAssociation sourceNodeId="10002" sourceNodeEntity="Issue" sinkNodeId="10400" sinkNodeEntity="Component"
  associationType="IssueComponent"/>
 <NodeAssociation sourceNodeId="10002" sourceNodeEntity="Issue" sinkNodeId="11000" sinkNodeEntity="Version"
  associationType="IssueVersion"/>
 <NodeAssociation sourceNodeId="10002" sourceNodeEntity="Issue" sinkNodeId="11001" sinkNodeEntity="Version"
  associationType="IssueFixVersion"/>
 <OSPropertyEntry id="11100" entityName="jira.properties" entityId="1" propertyKey="jira.baseurl" type="5"/>
 <OSPropertyString id="11100" value="https://jira.example"/>
 <Priority id="3" name="Major"/>
 <Project id="10000" name="Haulmark" lead="praman" key="HAUL" originalkey="HAUL"/>
 <Resolution id="1" name="Fixed"/>
 <Status id="1" name="Open"/>
 <Status id="5" name="Resolved"/>
 <User id="1" userName="Owen" lowerUserName="owen" displayName="Owen Tait" credential="{PKCS5S2}c2VjcmV0"/>
 <User id="2" userName="praman" lowerUserName="praman" displayName="Priya Raman"
  emailAddress="priya.raman@x.example"/>
 <Version id="11000" project="10000" name="2.0"/>
 <Version id="11001" project="10000" name="2.1"/>
"""
BACKUP = f"{HEAD}{FIRST}{ISSUES}{LAST}</entity-engine-xml>\n"
OWEN = {"name": "owen", "displayName": "Owen Tait"}
PRIYA = {"name": "praman", "displayName": "Priya Raman", "emailAddress": "priya.raman@x.example"}
SAME: dict[str, Any] = {
    "key": "HAUL-104",
    "self": "https://jira.example/rest/api/2/issue/10002",
    "fields": {
        "summary": "Oversized payloads hang",
        "description": "It *hangs* at 3 MB.\n\nSee [~owen].",
        "environment": "Bonn",
        "status": {"name": "Resolved"},
        "resolution": {"name": "Fixed"},
        "priority": {"name": "Major"},
        "issuetype": {"name": "Bug"},
        "reporter": PRIYA,
        "assignee": OWEN,
        "creator": PRIYA,
        "labels": ["edge"],
        "components": [{"name": "uplink"}],
        "versions": [{"name": "2.0"}],
        "fixVersions": [{"name": "2.1"}],
        "parent": {"key": "HAUL-100"},
        "project": {"key": "HAUL"},
        "created": "2025-12-02T09:12:00",
        "updated": "2025-12-04T13:31:44.123",
        "resolutiondate": "2025-12-04T09:12:00",
        "votes": {"votes": 3},
        "watches": {"watchCount": 4},
        "attachment": [{"filename": "a.png", "author": PRIYA}],
        "issuelinks": [{"type": {"inward": "is duplicated by"}, "inwardIssue": {"key": "HAUL-109"}}],
        "subtasks": [],
        "comment": {
            "comments": [
                {"author": PRIYA, "body": "See:\n{code}\nsend(payload);\n{code}"},
                {"author": OWEN, "body": "Then *limit* it."},
            ],
        },
    },
    "changelog": {
        "histories": [
            {
                "created": "2025-12-02T12:00:00",
                "author": PRIYA,
                "items": [{"field": "status", "fromString": "Open", "toString": "In Progress"}],
            },
            {
                "created": "2025-12-04T09:12:00",
                "author": OWEN,
                "items": [{"field": "status", "fromString": "In Progress", "toString": "Resolved"}],
            },
        ]
    },
}


def backup(*elements: str) -> str:
    return f"{HEAD}{''.join(elements)}</entity-engine-xml>"


def test_an_issue_of_a_backup_becomes_the_same_draft_as_from_rest(read: Read) -> None:
    outcome = read("jira", "entities.xml", BACKUP)
    assert (outcome.keys, outcome.reasons) == (["HAUL-100", "HAUL-104", "HAUL-109"], [])
    draft = outcome.drafts[1]
    assert draft.locator == "Issue[1]"
    assert replace(draft, locator="") == replace(
        read("jira", "p.json", json.dumps({"issues": [SAME]})).draft, locator=""
    )


def test_parents_count_their_subtasks_and_links_read_from_both_ends(read: Read) -> None:
    parent, _, other = read("jira", "entities.xml", BACKUP).drafts
    assert parent.metrics["subtasks"] == 1
    assert "links" not in parent.fields
    assert other.fields["links"] == "duplicates HAUL-104"
    assert (other.key, other.project, other.url) == (
        "HAUL-109",
        "HAUL",
        "https://jira.example/browse/HAUL-109",
    )


def test_the_order_of_the_elements_does_not_matter(read: Read) -> None:
    first = read("jira", "e.xml", backup(FIRST, ISSUES, LAST)).drafts
    assert read("jira", "e.xml", backup(LAST, ISSUES, FIRST)).drafts == first


def test_a_backup_in_its_zip_is_read_and_the_file_beside_it_has_a_row(read: Read) -> None:
    objects = '<?xml version="1.0"?><backup xmlns="http://www.atlassian.com/ao"><table name="AO_1"/></backup>'
    outcome = read(
        "jira",
        "backup.zip",
        zipped({"activeobjects.xml": objects.encode(), "entities.xml": BACKUP.encode("utf-8")}),
    )
    assert outcome.keys == ["HAUL-100", "HAUL-104", "HAUL-109"]
    assert [(row.reason, row.locator) for row in outcome.rejected] == [("unsupported", "activeobjects.xml")]


def test_no_secret_of_a_user_is_read(read: Read) -> None:
    outcome = read("jira", "entities.xml", BACKUP)
    assert "c2VjcmV0" not in str(outcome.rows)


def test_a_cut_backup_gives_its_whole_issues_and_one_row(read: Read) -> None:
    cut = BACKUP[: BACKUP.index('<Issue id="10003"') + 30]
    outcome = read("jira", "entities.xml", cut)
    assert outcome.keys == ["HAUL-100", "HAUL-104"]
    assert outcome.reasons == ["truncated"]
    assert "status" not in outcome.drafts[1].fields  # the names stood behind
    assert outcome.drafts[1].metrics["comments"] == 2


def test_an_issue_without_key_or_summary_costs_only_itself(read: Read) -> None:
    bad = ISSUES.replace('key="HAUL-100" number="100"', "").replace('summary="Big messages stop"', "")
    outcome = read("jira", "entities.xml", backup(FIRST, bad, LAST))
    assert outcome.keys == ["HAUL-104"]
    assert [(row.reason, row.locator) for row in outcome.rejected] == [
        ("missing_field", "Issue[0]"),
        ("missing_field", "Issue[2]"),
    ]


def test_comments_of_an_issue_that_is_not_there_are_rows(read: Read) -> None:
    stray = '<Action id="7" issue="404" author="owen" type="comment" body="Lost words"/>'
    outcome = read("jira", "entities.xml", backup(FIRST, stray, ISSUES, LAST))
    assert [(row.reason, row.locator, row.sample) for row in outcome.rejected] == [
        ("missing_field", "Action 7", "Lost words")
    ]


def test_an_issue_with_too_many_comments_is_too_large_and_the_others_stay(read: Read) -> None:
    many = "".join(
        f'<Action id="{n}" issue="10001" type="comment" body="{"word " * 200}"/>' for n in range(200)
    )
    outcome = read("jira", "e.xml", backup(FIRST, many, ISSUES, LAST), max_document_bytes=100_000)
    assert outcome.keys == ["HAUL-104", "HAUL-109"]
    assert [(row.reason, row.locator) for row in outcome.rejected] == [("too_large", "Issue[0]")]


def test_declared_entities_are_refused(read: Read) -> None:
    declaration = '<!DOCTYPE x [<!ENTITY b "bomb">]>'
    outcome = read("jira", "e.xml", BACKUP.replace("<entity-engine-xml", f"{declaration}<entity-engine-xml"))
    assert (outcome.keys, outcome.reasons) == ([], ["unsafe_xml"])


def test_comments_of_many_megabytes_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "object"
    with path.open("w") as file:
        file.write(HEAD)
        for number in range(10_000):
            body = f"The gateway {number} stops. " * 80
            file.write(f'<Action id="{number}" issue="{number % 100}" type="comment" body="{body}"/>\n')
        for number in range(100):
            file.write(f'<Issue id="{number}" key="GATE-{number}" summary="Number {number}"/>\n')
        file.write("</entity-engine-xml>")
    assert path.stat().st_size > 15_000_000
    raw = RawObject("jira", "raw/jira/entities.xml", path.stat().st_size, "0" * 64)
    tracemalloc.start()
    try:
        comments = sum(
            row.metrics["comments"]
            for row in sources.read(raw, path, CleanOptions())
            if isinstance(row, Draft)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert comments == 10_000
    assert peak < 8_000_000
