-- How the billing service writes a batch: one call.
--
-- Batches are of any size and plans are made once, so the function says that rows are found by their indexes.

CREATE FUNCTION billing.instant(milliseconds bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN timestamptz '1970-01-01 00:00:00+00' + milliseconds * interval '1 millisecond';

COMMENT ON FUNCTION billing.instant IS 'An instant of Unix milliseconds, exactly.';

CREATE FUNCTION billing.store(
    s_session_id uuid[], s_station_id text[], s_transaction_id text[], s_site_id text[], s_evse_id bigint[],
    s_connector_id bigint[], s_id_token text[], s_id_token_type text[], s_ocpp_version text[], s_status text[],
    s_reason text[], s_tariff_id text[], s_tariff_version bigint[], s_time_zone text[], s_currency text[],
    s_cost_excl numeric[], s_cost_incl numeric[], s_energy bigint[], s_energy_rung text[], s_started bigint[],
    s_ended bigint[], s_cdr_id text[], s_cdr_count int[], s_flags text[], s_updated bigint[], s_fold bytea[],
    f_session_id uuid[], f_sequence bigint[], f_facts bytea[],
    c_cdr_id text[], c_session_id uuid[], c_number int[], c_reference text[], c_station_id text[], c_site_id text[],
    c_id_token text[], c_started bigint[], c_ended bigint[], c_currency text[], c_total_excl numeric[],
    c_total_incl numeric[], c_energy bigint[], c_energy_rung text[], c_tariff_id text[], c_tariff_version bigint[],
    c_flags text[], c_ocpi text[], c_bill text[], c_updated bigint[],
    u_event_id text[], u_station_id text[], u_evse_id bigint[], u_energy bigint[], u_begin bigint[], u_end bigint[],
    u_at bigint[], u_session_id uuid[],
    j_partition int[], j_batch bigint[], j_until bigint[], j_entries bytea[],
    k_session_id uuid[], k_currency text[], k_total numeric[], k_after_tax boolean[], k_ours numeric[],
    k_failed boolean[], k_reason text[], k_details text[], k_checked bigint[]
) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    IF cardinality(s_session_id) > 0 THEN
        INSERT INTO billing.sessions (
               session_id, station_id, transaction_id, site_id, evse_id, connector_id, id_token, id_token_type,
               ocpp_version, status, reason, tariff_id, tariff_version, time_zone, currency, cost_excl, cost_incl,
               energy_wh, energy_rung, started_at, ended_at, cdr_id, cdr_count, flags, updated_at, fold)
        SELECT n.session_id, n.station_id, n.transaction_id, nullif(n.site_id, ''), n.evse_id, n.connector_id,
               nullif(n.id_token, ''), nullif(n.id_token_type, ''), n.ocpp_version, n.status, nullif(n.reason, ''),
               nullif(n.tariff_id, ''), nullif(n.tariff_version, 0), nullif(n.time_zone, ''), nullif(n.currency, ''),
               n.cost_excl, n.cost_incl, n.energy * 0.000001, n.energy_rung, billing.instant(n.started),
               billing.instant(n.ended), nullif(n.cdr_id, ''), n.cdr_count, string_to_array(n.flags, ','),
               billing.instant(n.updated), n.fold
          FROM unnest(
               s_session_id, s_station_id, s_transaction_id, s_site_id, s_evse_id, s_connector_id, s_id_token,
               s_id_token_type, s_ocpp_version, s_status, s_reason, s_tariff_id, s_tariff_version, s_time_zone,
               s_currency, s_cost_excl, s_cost_incl, s_energy, s_energy_rung, s_started, s_ended, s_cdr_id,
               s_cdr_count, s_flags, s_updated, s_fold)
               AS n (
               session_id, station_id, transaction_id, site_id, evse_id, connector_id, id_token, id_token_type,
               ocpp_version, status, reason, tariff_id, tariff_version, time_zone, currency, cost_excl, cost_incl,
               energy, energy_rung, started, ended, cdr_id, cdr_count, flags, updated, fold)
            ON CONFLICT (session_id) DO UPDATE SET
               site_id = excluded.site_id, evse_id = excluded.evse_id, connector_id = excluded.connector_id,
               id_token = excluded.id_token, id_token_type = excluded.id_token_type, status = excluded.status,
               reason = excluded.reason, tariff_id = excluded.tariff_id, tariff_version = excluded.tariff_version,
               time_zone = excluded.time_zone, currency = excluded.currency, cost_excl = excluded.cost_excl,
               cost_incl = excluded.cost_incl, energy_wh = excluded.energy_wh, energy_rung = excluded.energy_rung,
               started_at = excluded.started_at, ended_at = excluded.ended_at, cdr_id = excluded.cdr_id,
               cdr_count = excluded.cdr_count, flags = excluded.flags, updated_at = excluded.updated_at,
               fold = excluded.fold;
    END IF;

    IF cardinality(f_session_id) > 0 THEN
        INSERT INTO billing.facts (session_id, sequence, facts)
        SELECT * FROM unnest(f_session_id, f_sequence, f_facts);
    END IF;

    IF cardinality(c_cdr_id) > 0 THEN
        INSERT INTO billing.cdrs (
               cdr_id, session_id, number, credit, credit_reference_id, station_id, site_id, id_token, started_at,
               ended_at, currency, total_excl, total_incl, energy_wh, energy_rung, tariff_id, tariff_version, flags,
               ocpi, bill, last_updated)
        SELECT n.cdr_id, n.session_id, n.number, n.reference <> '', nullif(n.reference, ''), n.station_id,
               nullif(n.site_id, ''), nullif(n.id_token, ''), billing.instant(n.started), billing.instant(n.ended),
               n.currency, n.total_excl, n.total_incl, n.energy * 0.000001, n.energy_rung, n.tariff_id,
               n.tariff_version, string_to_array(n.flags, ','), n.ocpi, n.bill, billing.instant(n.updated)
          FROM unnest(
               c_cdr_id, c_session_id, c_number, c_reference, c_station_id, c_site_id, c_id_token, c_started, c_ended,
               c_currency, c_total_excl, c_total_incl, c_energy, c_energy_rung, c_tariff_id, c_tariff_version,
               c_flags, c_ocpi, c_bill, c_updated)
               AS n (
               cdr_id, session_id, number, reference, station_id, site_id, id_token, started, ended, currency,
               total_excl, total_incl, energy, energy_rung, tariff_id, tariff_version, flags, ocpi, bill, updated);
    END IF;

    IF cardinality(u_event_id) > 0 THEN
        INSERT INTO billing.unattributed (
               event_id, station_id, evse_id, energy_wh, register_begin_wh, register_end_wh, at, session_id)
        SELECT n.event_id, n.station_id, n.evse_id, n.energy * 0.000001, n.begun * 0.000001, n.ended * 0.000001,
               billing.instant(n.at), n.session_id
          FROM unnest(u_event_id, u_station_id, u_evse_id, u_energy, u_begin, u_end, u_at, u_session_id)
               AS n (event_id, station_id, evse_id, energy, begun, ended, at, session_id);
    END IF;

    IF cardinality(j_partition) > 0 THEN
        DELETE FROM billing.journal AS j
         USING unnest(j_partition, j_until) AS n (partition, until)
         WHERE j.partition = n.partition AND j.batch <= n.until;
        INSERT INTO billing.journal (partition, batch, entries)
        SELECT n.partition, n.batch, n.entries
          FROM unnest(j_partition, j_batch, j_entries) AS n (partition, batch, entries)
         WHERE length(n.entries) > 0;
    END IF;

    IF cardinality(k_session_id) > 0 THEN
        INSERT INTO billing.station_costs (
               session_id, currency, total, after_tax, ours, failed, reason, details, checked_at)
        SELECT n.session_id, n.currency, n.total, n.after_tax, n.ours, n.failed, nullif(n.reason, ''), n.details,
               billing.instant(n.checked)
          FROM unnest(
               k_session_id, k_currency, k_total, k_after_tax, k_ours, k_failed, k_reason, k_details, k_checked)
               AS n (session_id, currency, total, after_tax, ours, failed, reason, details, checked)
            ON CONFLICT (session_id) DO UPDATE SET
               currency = excluded.currency, total = excluded.total, after_tax = excluded.after_tax,
               ours = excluded.ours, failed = excluded.failed, reason = excluded.reason, details = excluded.details,
               checked_at = excluded.checked_at;
    END IF;
END
$$;

COMMENT ON FUNCTION billing.store IS 'Everything that a batch has changed.';

-- What a journal holds is gone within a minute: no time is spent on making it smaller.
ALTER TABLE billing.journal ALTER COLUMN entries SET STORAGE EXTERNAL;
