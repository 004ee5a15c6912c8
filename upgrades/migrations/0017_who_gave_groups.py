"""Who gave a group its role: that person neither gets the role by it nor confirms it for anybody."""

from django.db import migrations, models

GIVERS = r"""
-- To note down who gave it changes nothing of what a group may do, so it is no entry.
DROP TRIGGER group_role_is_registered ON upgrades_grouprole;
CREATE TRIGGER group_role_is_registered AFTER INSERT OR UPDATE OF environment_id, "group", role OR DELETE
    ON upgrades_grouprole FOR EACH ROW EXECUTE FUNCTION register_group_role();

-- The register knows it, where it was a person: the newest entry is about the rule that stands.
UPDATE upgrades_grouprole AS rule SET given_by = coalesce((
    SELECT substring(entry.text::json #>> '{by,id}' FROM '^user:[0-9]+$') FROM upgrades_registerentry AS entry
    WHERE entry.book = 'access/' || rule.environment_id AND entry.kind = 'group.given'
          AND entry.text::json #>> '{body,group}' = rule."group" AND entry.text::json #>> '{body,role}' = rule.role
    ORDER BY entry.number DESC LIMIT 1), '');

-- Where that very person confirmed the role of a member, or nobody can tell, no second one has: it is given anew.
SELECT set_config('runbook.actor', '{"id":"system","kind":"system","name":"Runbook","roles":[]}', true);
WITH taken AS (
    DELETE FROM upgrades_membership AS held USING upgrades_grouprole AS rule
    WHERE held."group" = rule."group" AND held.environment_id = rule.environment_id AND held.role = rule.role
          AND held.confirmed_by <> '' AND rule.given_by IN ('', held.confirmed_by)
    RETURNING held.environment_id, held.user_id, held.role, held."group", held.given_at
)
INSERT INTO upgrades_membership (environment_id, user_id, role, "group", given_at, given_by, confirmed_by)
    SELECT environment_id, user_id, role, "group", given_at, '', '' FROM taken;
SELECT set_config('runbook.actor', '', true);

UPDATE upgrades_membership AS held SET given_by = coalesce((
    SELECT rule.given_by FROM upgrades_grouprole AS rule
    WHERE rule."group" = held."group" AND rule.environment_id = held.environment_id AND rule.role = held.role), '')
    WHERE held."group" <> '';
"""

UNDO = """
UPDATE upgrades_membership SET given_by = 'system:provider' WHERE "group" <> '';
DROP TRIGGER group_role_is_registered ON upgrades_grouprole;
CREATE TRIGGER group_role_is_registered AFTER INSERT OR UPDATE OR DELETE ON upgrades_grouprole
    FOR EACH ROW EXECUTE FUNCTION register_group_role();
"""


class Migration(migrations.Migration):
    dependencies = [("upgrades", "0016_one_index_of_events")]
    operations = [
        migrations.AddField(
            "grouprole", "given_by",
            models.CharField(blank=True, default="", max_length=40, help_text="As that of a membership; empty where nobody knows."),
            preserve_default=False,
        ),
        migrations.RunSQL(GIVERS, UNDO),
    ]
