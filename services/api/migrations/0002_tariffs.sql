-- Tariffs, whom they are assigned to, and sites, whose wall clock and address a bill needs.
--
-- What a session is priced with must be decided the same way again when its events are read again. So versions and
-- assignments are only ever added, and never take effect before they were made: an assignment is ended at an instant
-- that is still to come, a version is removed only while it has not become valid.

CREATE TABLE config.tariffs (
    tariff_id text NOT NULL CHECK (length(tariff_id) BETWEEN 1 AND 60),
    version integer NOT NULL CHECK (version >= 1),
    content text NOT NULL,
    format text NOT NULL CHECK (format IN ('ocpi-2.2.1', 'ocpi-2.3.0', 'ocpp-2.1')),
    currency text NOT NULL CHECK (length(currency) = 3),
    fingerprint text NOT NULL,
    valid_from timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz CHECK (removed_at <= valid_from),
    PRIMARY KEY (tariff_id, version),
    CHECK (valid_from >= created_at)
);
COMMENT ON TABLE config.tariffs IS 'Versions of tariffs. The content of a version never changes.';
COMMENT ON COLUMN config.tariffs.version IS 'From 1 for each tariff, never given twice: a version that was removed keeps its number.';
COMMENT ON COLUMN config.tariffs.content IS 'The JSON text as it was given.';
COMMENT ON COLUMN config.tariffs.format IS 'What the content is: an OCPI tariff of this version, or a TariffType of OCPP 2.1.';
COMMENT ON COLUMN config.tariffs.fingerprint IS 'Of the content: tariffs that price alike have the same.';
COMMENT ON COLUMN config.tariffs.valid_from IS 'From when sessions may start with it.';
COMMENT ON COLUMN config.tariffs.removed_at IS 'Before it became valid; no session has it.';

CREATE INDEX tariffs_standing ON config.tariffs (tariff_id text_pattern_ops, version DESC) WHERE removed_at IS NULL;
CREATE INDEX tariffs_valid ON config.tariffs (tariff_id, valid_from DESC) WHERE removed_at IS NULL;

CREATE TABLE config.tariff_assignments (
    assignment_id uuid PRIMARY KEY,
    tariff_id text NOT NULL,
    scope text NOT NULL CHECK (scope IN ('token', 'token_group', 'connector', 'station', 'site', 'default')),
    subject text NOT NULL DEFAULT '' CHECK ((scope = 'default') = (subject = '')),
    priority integer NOT NULL DEFAULT 0,
    valid_from timestamptz NOT NULL,
    valid_until timestamptz CHECK (valid_until >= valid_from),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (valid_from >= created_at)
);
COMMENT ON TABLE config.tariff_assignments IS 'Which sessions have which tariff.';
COMMENT ON COLUMN config.tariff_assignments.subject IS 'The case-folded id token, the group, STATION/CONNECTOR (1.6) or STATION/EVSE/CONNECTOR (2.x), the station, the site; empty for the default.';
COMMENT ON COLUMN config.tariff_assignments.priority IS 'Among assignments of one scope the highest goes first.';
COMMENT ON COLUMN config.tariff_assignments.valid_until IS 'Exclusive; null: until it is ended.';

CREATE INDEX tariff_assignments_subject ON config.tariff_assignments (scope, subject, valid_from);
CREATE INDEX tariff_assignments_tariff ON config.tariff_assignments (tariff_id, created_at);

CREATE TABLE config.sites (
    site_id text PRIMARY KEY CHECK (length(site_id) BETWEEN 1 AND 255),
    name text,
    time_zone text NOT NULL,
    country_code text CHECK (length(country_code) = 2),
    postal_code text,
    city text,
    address text,
    latitude numeric CHECK (latitude BETWEEN -90 AND 90),
    longitude numeric CHECK (longitude BETWEEN -180 AND 180),
    party_id text CHECK (length(party_id) = 3),
    operator_country text CHECK (length(operator_country) = 2),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE config.sites IS 'Where stations stand: config.stations.site_id names it.';
COMMENT ON COLUMN config.sites.time_zone IS 'Its wall clock decides over times of day in tariffs; a name of the IANA database.';
COMMENT ON COLUMN config.sites.country_code IS 'ISO 3166-1 alpha-2, as country_code of config.sites.operator_country.';
COMMENT ON COLUMN config.sites.party_id IS 'Of the operator in OCPI.';
COMMENT ON COLUMN config.sites.operator_country IS 'The country that the operator''s OCPI party id belongs to.';

-- One number says whether anything above has changed, so that a service that keeps it all in memory asks for nothing
-- else. It is written by whoever changes something, last, and so in the order of their commits.
CREATE TABLE config.tariff_revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL
);
COMMENT ON TABLE config.tariff_revision IS 'How often tariffs, assignments or sites were changed.';
INSERT INTO config.tariff_revision (revision) VALUES (0);

CREATE FUNCTION config.next_tariff_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE config.tariff_revision SET revision = revision + 1;
    RETURN NULL;
END
$$;

CREATE TRIGGER tariffs_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON config.tariffs
    FOR EACH STATEMENT EXECUTE FUNCTION config.next_tariff_revision();
CREATE TRIGGER tariff_assignments_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON config.tariff_assignments
    FOR EACH STATEMENT EXECUTE FUNCTION config.next_tariff_revision();
CREATE TRIGGER sites_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON config.sites
    FOR EACH STATEMENT EXECUTE FUNCTION config.next_tariff_revision();

-- What a token may charge for in one session: the limits that a station of OCPP 2.1 is told.
ALTER TABLE config.tokens
    ADD COLUMN max_cost numeric CHECK (max_cost >= 0),
    ADD COLUMN max_energy_wh bigint CHECK (max_energy_wh > 0),
    ADD COLUMN max_time_seconds bigint CHECK (max_time_seconds > 0);
COMMENT ON COLUMN config.tokens.max_cost IS 'Of a session, taxes included, in the currency of its tariff; null: no limit.';
COMMENT ON COLUMN config.tokens.max_energy_wh IS 'Of a session; null: no limit.';
COMMENT ON COLUMN config.tokens.max_time_seconds IS 'Of a session; null: no limit.';
