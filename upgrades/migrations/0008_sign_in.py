"""Sign-in: sessions as people see them, the table behind sign-in's counters, one spelling of each name, and who gave which role."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

ROLES = [
    ("operator", "Operator"),
    ("approver", "Approver"),
    ("author", "Author"),
    ("auditor", "Auditor"),
    ("administrator", "Administrator"),
]

TABLES = r"""
CREATE UNLOGGED TABLE upgrades_sharedcache (
    key varchar(255) PRIMARY KEY,
    value text NOT NULL,
    expires timestamptz NOT NULL
);
CREATE INDEX sharedcache_by_expiry ON upgrades_sharedcache (expires);

-- “Nina” and “nina” are one person: sign-in ignores case, so a second spelling could shut both out.
CREATE UNIQUE INDEX usernames_are_unique_in_any_case ON auth_user (upper(username));

-- An auditor reads all and changes nothing (trust.md 10.1). Two roles given at the same moment wait for each other.
CREATE FUNCTION refuse_auditor_with_other_role() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('roles ' || NEW.environment_id || ' ' || NEW.user_id, 0));
    IF EXISTS (SELECT 1 FROM public.upgrades_membership AS held
               WHERE held.environment_id = NEW.environment_id AND held.user_id = NEW.user_id AND held.id <> NEW.id
                     AND (held.role = 'auditor') <> (NEW.role = 'auditor')) THEN
        RAISE EXCEPTION 'an auditor holds no other role in the same environment'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'an_auditor_has_no_other_role';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER an_auditor_has_no_other_role AFTER INSERT OR UPDATE ON upgrades_membership
    FOR EACH ROW EXECUTE FUNCTION refuse_auditor_with_other_role();

-- A confirmation is an entry of its own: the role was neither taken nor given again.
CREATE FUNCTION register_confirmation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.append_register('access/' || NEW.environment_id, 'role.confirmed', NULL, public.register_actor(),
        json_build_object('user', 'user:' || NEW.user_id, 'role', NEW.role)::text);
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION register_confirmation() FROM PUBLIC;
DROP TRIGGER membership_is_registered ON upgrades_membership;
CREATE TRIGGER membership_is_registered AFTER INSERT OR UPDATE OF environment_id, user_id, role OR DELETE
    ON upgrades_membership FOR EACH ROW EXECUTE FUNCTION register_membership();
CREATE TRIGGER confirmation_is_registered AFTER UPDATE OF confirmed_by ON upgrades_membership
    FOR EACH ROW WHEN (OLD.confirmed_by IS DISTINCT FROM NEW.confirmed_by) EXECUTE FUNCTION register_confirmation();

-- Which group stands for which role is as weighty as a role itself.
CREATE FUNCTION register_group_role() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM public.append_register('access/' || OLD.environment_id, 'group.taken', NULL, public.register_actor(),
            json_build_object('group', OLD."group", 'role', OLD.role)::text);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM public.append_register('access/' || NEW.environment_id, 'group.given', NULL, public.register_actor(),
            json_build_object('group', NEW."group", 'role', NEW.role)::text);
    END IF;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION register_group_role() FROM PUBLIC;
CREATE TRIGGER group_role_is_registered AFTER INSERT OR UPDATE OR DELETE ON upgrades_grouprole
    FOR EACH ROW EXECUTE FUNCTION register_group_role();
"""

UNDO = """
DROP TRIGGER group_role_is_registered ON upgrades_grouprole;
DROP FUNCTION register_group_role();
DROP TRIGGER confirmation_is_registered ON upgrades_membership;
DROP TRIGGER membership_is_registered ON upgrades_membership;
CREATE TRIGGER membership_is_registered AFTER INSERT OR UPDATE OR DELETE ON upgrades_membership
    FOR EACH ROW EXECUTE FUNCTION register_membership();
DROP FUNCTION register_confirmation();
DROP TRIGGER an_auditor_has_no_other_role ON upgrades_membership;
DROP FUNCTION refuse_auditor_with_other_role();
DROP INDEX usernames_are_unique_in_any_case;
DROP TABLE upgrades_sharedcache;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("upgrades", "0007_rules_due"),
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.CreateModel(
            name="SignedIn",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("session_key", models.CharField(max_length=40, unique=True)),
                ("address", models.GenericIPAddressField()),
                ("browser", models.CharField(max_length=200)),
                ("began_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("used_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="sessions", to=settings.AUTH_USER_MODEL)),
            ],
            options={"ordering": ("-used_at",)},
        ),
        migrations.CreateModel(
            name="GroupRole",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("group", models.CharField(max_length=200)),
                ("role", models.CharField(choices=ROLES, max_length=20)),
                ("environment", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="group_roles", to="upgrades.environment")),
            ],
            options={"ordering": ("group", "role")},
        ),
        migrations.AddConstraint(
            model_name="grouprole",
            constraint=models.UniqueConstraint(fields=("environment", "group", "role"), name="a_group_has_a_role_once"),
        ),
        migrations.AddField("membership", "group", models.CharField(blank=True, max_length=200, default=""), preserve_default=False),
        migrations.AddField("membership", "given_at", models.DateTimeField(default=django.utils.timezone.now)),
        migrations.AddField(
            "membership", "given_by",
            models.CharField(blank=True, max_length=40, default="", help_text="The id that runs know the giver by."),
            preserve_default=False,
        ),
        migrations.AddField(
            "membership", "confirmed_by",
            models.CharField(blank=True, max_length=40, default="", help_text="As given_by: a second administrator."),
            preserve_default=False,
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.CheckConstraint(
                condition=models.Q(("confirmed_by", ""), models.Q(("confirmed_by", models.F("given_by")), _negated=True), _connector="OR"),
                name="confirmed_by_a_second_person",
            ),
        ),
        migrations.RunSQL(TABLES, UNDO),
    ]
