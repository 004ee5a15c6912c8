"""Everything of the record is written by functions that check what they are given, and changed by nobody.

Who may call them and read is granted by `manage.py restrict_role`. Only rows are guarded by triggers: TRUNCATE is refused to the
application's role by its missing right, and the owner could take any trigger away anyway.
"""

from django.db import migrations

# Since it is the owner's rights that the functions use, nothing they name can be found in a schema of somebody else.
FUNCTIONS = r"""
CREATE OR REPLACE FUNCTION append_run_events(p_run bigint, p_seq integer, p_kinds text[], p_texts text[]) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last_seq integer;
    last_hash text;
    tail text;
BEGIN
    -- The run's row is the head of its chain: whoever holds it appends, everybody else waits.
    PERFORM 1 FROM public.upgrades_run WHERE id = p_run FOR UPDATE;
    SELECT seq, hash INTO last_seq, last_hash FROM public.upgrades_runevent
        WHERE run_id = p_run ORDER BY seq DESC LIMIT 1;
    last_seq := coalesce(last_seq, 0);
    last_hash := coalesce(last_hash, repeat('0', 64));
    IF p_seq IS DISTINCT FROM last_seq + 1 THEN
        RAISE EXCEPTION 'run % is at event %, so event % cannot follow', p_run, last_seq, p_seq
            USING ERRCODE = 'serialization_failure';
    END IF;
    IF coalesce(array_length(p_texts, 1), 0) = 0 OR array_length(p_texts, 1) <> array_length(p_kinds, 1) THEN
        RAISE EXCEPTION 'as many kinds as texts are needed, and one at least' USING ERRCODE = 'check_violation';
    END IF;
    FOR i IN 1 .. array_length(p_texts, 1) LOOP
        -- A canonical text is a JSON object that ends with what it says of its own place.
        tail := ',"kind":"' || p_kinds[i] || '","run":' || p_run || ',"seq":' || (last_seq + i) || ',"v":';
        IF p_kinds[i] !~ '^[a-z.-]+$' OR left(p_texts[i], 1) <> '{' OR p_texts[i] ~ '[\n\r]'
           OR regexp_replace(right(p_texts[i], length(tail) + 4), '[0-9]{1,3}\}$', '') NOT LIKE '%' || tail
        THEN
            RAISE EXCEPTION 'the text of event % of run % does not say that it is %', last_seq + i, p_run, p_kinds[i]
                USING ERRCODE = 'check_violation';
        END IF;
        PERFORM p_texts[i]::json;
        INSERT INTO public.upgrades_runevent (run_id, seq, kind, text, previous, hash)
        VALUES (p_run, last_seq + i, p_kinds[i], p_texts[i], last_hash,
                encode(sha256(convert_to(last_hash || E'\n' || p_texts[i], 'UTF8')), 'hex'))
        RETURNING hash INTO last_hash;
    END LOOP;
    RETURN last_hash;
END $$;

CREATE FUNCTION append_register(p_book text, p_kind text, p_run bigint, p_by text, p_body text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    next_number integer;
    last_hash text;
    now_at timestamptz;
    entry text;
BEGIN
    IF p_book !~ '^[a-z]+(/[1-9][0-9]*)?$' OR p_kind !~ '^[a-z.-]+$'
       OR json_typeof(p_by::json) <> 'object' OR json_typeof(p_body::json) <> 'object' THEN
        RAISE EXCEPTION 'this is no entry of the register' USING ERRCODE = 'check_violation';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('register ' || p_book, 0));
    SELECT number, hash INTO next_number, last_hash FROM public.upgrades_registerentry
        WHERE book = p_book ORDER BY number DESC LIMIT 1;
    next_number := coalesce(next_number, 0) + 1;
    last_hash := coalesce(last_hash, repeat('0', 64));
    now_at := clock_timestamp();
    entry := '{"at":"' || to_char(now_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00","body":' || p_body
        || ',"book":"' || p_book || '","by":' || p_by || ',"kind":"' || p_kind || '","number":' || next_number
        || ',"run":' || coalesce(p_run::text, 'null') || ',"v":1}';
    IF entry ~ '[\n\r]' THEN
        RAISE EXCEPTION 'an entry is one line' USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO public.upgrades_registerentry (book, number, kind, run, at, text, previous, hash)
    VALUES (p_book, next_number, p_kind, p_run, now_at, entry, last_hash,
            encode(sha256(convert_to(last_hash || E'\n' || entry, 'UTF8')), 'hex'));
    RETURN next_number;
END $$;

CREATE FUNCTION append_checkpoint(p_number integer, p_size bigint, p_at timestamptz, p_note text,
                                  p_subjects text[], p_seqs integer[], p_hashes text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last_number integer;
    last_size bigint;
    leaves integer := coalesce(array_length(p_subjects, 1), 0);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('checkpoints', 0));
    SELECT number, size INTO last_number, last_size FROM public.upgrades_checkpoint ORDER BY number DESC LIMIT 1;
    IF p_number IS DISTINCT FROM coalesce(last_number, 0) + 1 OR p_size IS DISTINCT FROM coalesce(last_size, 0) + leaves
    THEN
        RAISE EXCEPTION 'checkpoint % over % leaves cannot follow checkpoint % over %',
            p_number, p_size, coalesce(last_number, 0), coalesce(last_size, 0) USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO public.upgrades_checkpointleaf (position, subject, seq, hash)
        SELECT p_size - leaves + place - 1, subject, seq, hash
        FROM unnest(p_subjects, p_seqs, p_hashes) WITH ORDINALITY AS given (subject, seq, hash, place);
    INSERT INTO public.upgrades_checkpoint (number, size, at, note) VALUES (p_number, p_size, p_at, p_note);
END $$;

-- Roles and policies: whoever changes them, by page, shell or SQL, does not get past this.
CREATE FUNCTION register_actor() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(nullif(current_setting('runbook.actor', true), ''),
        json_build_object('id', 'database:' || session_user, 'kind', 'database', 'name', session_user,
                          'roles', json_build_array())::text)
$$;

CREATE FUNCTION register_membership() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    person record;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        SELECT username, first_name, last_name INTO person FROM public.auth_user WHERE id = OLD.user_id;
        PERFORM public.append_register('access/' || OLD.environment_id, 'role.taken', NULL, public.register_actor(),
            json_build_object('user', 'user:' || OLD.user_id, 'username', person.username,
                'name', btrim(person.first_name || ' ' || person.last_name), 'role', OLD.role)::text);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        SELECT username, first_name, last_name INTO person FROM public.auth_user WHERE id = NEW.user_id;
        PERFORM public.append_register('access/' || NEW.environment_id, 'role.given', NULL, public.register_actor(),
            json_build_object('user', 'user:' || NEW.user_id, 'username', person.username,
                'name', btrim(person.first_name || ' ' || person.last_name), 'role', NEW.role)::text);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER membership_is_registered AFTER INSERT OR UPDATE OR DELETE ON upgrades_membership
    FOR EACH ROW EXECUTE FUNCTION register_membership();

CREATE FUNCTION register_policies() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.append_register('access/' || NEW.id, 'policies.changed', NULL, public.register_actor(),
        json_build_object('before', OLD.policies, 'after', NEW.policies)::text);
    RETURN NULL;
END $$;
CREATE TRIGGER policies_are_registered AFTER UPDATE OF policies ON upgrades_environment
    FOR EACH ROW WHEN (OLD.policies IS DISTINCT FROM NEW.policies) EXECUTE FUNCTION register_policies();

CREATE TRIGGER register_is_append_only BEFORE UPDATE OR DELETE ON upgrades_registerentry
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();
CREATE TRIGGER leaves_are_append_only BEFORE UPDATE OR DELETE ON upgrades_checkpointleaf
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();
CREATE TRIGGER checkpoints_are_append_only BEFORE UPDATE OR DELETE ON upgrades_checkpoint
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();

REVOKE EXECUTE ON FUNCTION append_run_events(bigint, integer, text[], text[]),
    append_register(text, text, bigint, text, text),
    append_checkpoint(integer, bigint, timestamptz, text, text[], integer[], text[]),
    register_membership(), register_policies() FROM PUBLIC;
"""

UNDO = """
DROP TRIGGER checkpoints_are_append_only ON upgrades_checkpoint;
DROP TRIGGER leaves_are_append_only ON upgrades_checkpointleaf;
DROP TRIGGER register_is_append_only ON upgrades_registerentry;
DROP TRIGGER policies_are_registered ON upgrades_environment;
DROP TRIGGER membership_is_registered ON upgrades_membership;
DROP FUNCTION register_policies();
DROP FUNCTION register_membership();
DROP FUNCTION register_actor();
DROP FUNCTION append_checkpoint(integer, bigint, timestamptz, text, text[], integer[], text[]);
DROP FUNCTION append_register(text, text, bigint, text, text);
"""


class Migration(migrations.Migration):
    dependencies = [("upgrades", "0004_register_and_checkpoints")]
    operations = [migrations.RunSQL(FUNCTIONS, UNDO)]
