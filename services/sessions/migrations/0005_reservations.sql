-- Reservations: what ReserveNow made, until when, and what became of it. The fold keeps what it needs of them with the
-- station; this table is for queries, and says when to look.

CREATE TABLE sessions.reservations (
    reservation_key uuid PRIMARY KEY,            -- made of station, id and command; `session_id` of its events
    station_id text NOT NULL,
    reservation_id bigint NOT NULL,              -- as the station knows it; it may be given again
    ocpp_version text NOT NULL,
    site_id text,
    evse_id bigint NOT NULL,                     -- 1.6: the connector; 0: any
    connector_id bigint NOT NULL,
    id_token text,
    id_token_type text,
    group_id text,
    status text NOT NULL
        CHECK (status IN ('reserved', 'used', 'expired', 'cancelled', 'removed', 'replaced')),
    made_at timestamptz NOT NULL,                -- when the station accepted it first
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    session_id uuid,                             -- that uses it
    tariff_id text,                              -- assigned when it was made; what it is billed by if nobody comes
    tariff_version bigint,
    time_zone text,
    command_id text NOT NULL                     -- of the ReserveNow that made it
);

CREATE INDEX reservations_station ON sessions.reservations (station_id, made_at);
CREATE INDEX reservations_due ON sessions.reservations (expires_at) WHERE status = 'reserved';
CREATE INDEX reservations_session ON sessions.reservations (session_id) WHERE session_id IS NOT NULL;

COMMENT ON TABLE sessions.reservations IS
    'One row per reservation that a station has accepted. Written by the sessions service.';
COMMENT ON COLUMN sessions.reservations.status IS
    'reserved; used; expired; cancelled; removed by the station; replaced by that of another id token.';

CREATE INDEX transactions_reservation ON sessions.transactions (station_id, reservation_id, opened_at)
    WHERE reservation_id IS NOT NULL;

DROP FUNCTION sessions.store;

-- What every event changes comes as arrays of its own (`touched`); rows that few events change come whole. Rare kinds of
-- rows come as JSON arrays, empty text for none.
CREATE FUNCTION sessions.store(
    touched uuid[], touched_folds bytea[], touched_energies bigint[], touched_rungs text[], touched_registers bigint[],
    touched_states text[], touched_at bigint[], touched_counts bigint[],
    event_sessions uuid[], event_keys bigint[], event_hashes int[], event_stations text[], event_evses bigint[],
    event_names text[], event_triggers text[], event_inside boolean[], event_at bigint[], event_station_at bigint[],
    event_received bigint[], event_shapes bigint[], event_samples bytea[], event_times bytea[], event_payloads bytea[],
    t_session_id uuid[], t_station_id text[], t_transaction_id text[], t_generation int[], t_ocpp_version text[],
    t_site_id text[], t_evse_id bigint[], t_connector_id bigint[], t_id_token text[], t_id_token_key text[],
    t_id_token_type text[], t_group_id text[], t_authorization_status text[], t_state text[], t_is_open boolean[],
    t_is_final boolean[], t_is_complete boolean[], t_opened bigint[], t_started bigint[], t_ended bigint[],
    t_heard bigint[], t_charging_state text[], t_energy bigint[], t_energy_rung text[], t_register_begin bigint[],
    t_register_end bigint[], t_stop_reason text[], t_reservation_id bigint[], t_remote_start_id bigint[],
    t_events bigint[], t_flags text[], t_due bigint[], t_fold bytea[],
    s_station_id text[], s_unattributed bigint[], s_unsettled text[], s_fold bytea[],
    new_shapes text, new_signed text, new_authorizations text, new_reservations text,
    new_tariff_changes text,
    told_reservations text DEFAULT ''  -- a worker of the version before has none
) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    IF cardinality(touched) > 0 THEN
        UPDATE sessions.transactions AS t
           SET fold = n.fold,
               energy_wh = n.energy * 0.000001,
               energy_rung = n.rung,
               register_end_wh = n.register * 0.000001,
               charging_state = n.charging_state,
               last_event_at = to_timestamp(n.received / 1000.0::float8),
               event_count = n.events
          FROM unnest(touched, touched_folds, touched_energies, touched_rungs, touched_registers, touched_states,
                      touched_at, touched_counts)
               AS n (session_id, fold, energy, rung, register, charging_state, received, events)
         WHERE t.session_id = n.session_id;
    END IF;

    IF cardinality(event_sessions) > 0 THEN
        INSERT INTO sessions.meter_values (
               session_id, event_key, content_hash, station_id, evse_id, event, trigger, in_session, happened_at,
               station_at, received_at, shape_id, samples, sample_times, payload)
        SELECT n.session_id, n.event_key, n.content_hash, n.station_id, n.evse_id, n.event, n.trigger, n.inside,
               to_timestamp(n.happened / 1000.0::float8), to_timestamp(n.station_at / 1000.0::float8),
               to_timestamp(n.received / 1000.0::float8), n.shape_id, n.samples, n.times, n.payload
          FROM unnest(event_sessions, event_keys, event_hashes, event_stations, event_evses, event_names,
                      event_triggers, event_inside, event_at, event_station_at, event_received, event_shapes,
                      event_samples, event_times, event_payloads)
               AS n (session_id, event_key, content_hash, station_id, evse_id, event, trigger, inside, happened,
                     station_at, received, shape_id, samples, times, payload);
    END IF;

    IF cardinality(t_session_id) > 0 THEN
        INSERT INTO sessions.transactions AS t (
               session_id, station_id, transaction_id, generation, ocpp_version, site_id, evse_id, connector_id,
               id_token, id_token_key, id_token_type, group_id, authorization_status, state, is_open, is_final,
               is_complete, opened_at, started_at, ended_at, last_event_at, charging_state, energy_wh, energy_rung,
               register_begin_wh, register_end_wh, stop_reason, reservation_id, remote_start_id, event_count, flags,
               due_at, fold)
        SELECT
               n.session_id, n.station_id, n.transaction_id, n.generation, n.ocpp_version, n.site_id, n.evse_id,
               n.connector_id, n.id_token, n.id_token_key, n.id_token_type, n.group_id, n.authorization_status,
               n.state, n.is_open, n.is_final, n.is_complete, to_timestamp(n.opened / 1000.0::float8),
               to_timestamp(n.started / 1000.0::float8), to_timestamp(n.ended / 1000.0::float8),
               to_timestamp(n.heard / 1000.0::float8), n.charging_state, n.energy * 0.000001, n.energy_rung,
               n.register_begin * 0.000001, n.register_end * 0.000001, n.stop_reason, n.reservation_id,
               n.remote_start_id, n.events, string_to_array(n.flags, ','), to_timestamp(n.due / 1000.0::float8),
               n.fold
          FROM unnest(
               t_session_id, t_station_id, t_transaction_id, t_generation, t_ocpp_version, t_site_id, t_evse_id,
               t_connector_id, t_id_token, t_id_token_key, t_id_token_type, t_group_id, t_authorization_status,
               t_state, t_is_open, t_is_final, t_is_complete, t_opened, t_started, t_ended, t_heard,
               t_charging_state, t_energy, t_energy_rung, t_register_begin, t_register_end, t_stop_reason,
               t_reservation_id, t_remote_start_id, t_events, t_flags, t_due, t_fold)
               AS n (
               session_id, station_id, transaction_id, generation, ocpp_version, site_id, evse_id, connector_id,
               id_token, id_token_key, id_token_type, group_id, authorization_status, state, is_open, is_final,
               is_complete, opened, started, ended, heard, charging_state, energy, energy_rung, register_begin,
               register_end, stop_reason, reservation_id, remote_start_id, events, flags, due, fold)
            ON CONFLICT (session_id) DO UPDATE SET
               evse_id = excluded.evse_id, connector_id = excluded.connector_id, id_token = excluded.id_token,
               id_token_key = excluded.id_token_key, id_token_type = excluded.id_token_type,
               group_id = excluded.group_id, authorization_status = excluded.authorization_status,
               state = excluded.state, is_open = excluded.is_open, is_final = excluded.is_final,
               is_complete = excluded.is_complete, started_at = excluded.started_at, ended_at = excluded.ended_at,
               last_event_at = excluded.last_event_at, charging_state = excluded.charging_state,
               energy_wh = excluded.energy_wh, energy_rung = excluded.energy_rung,
               register_begin_wh = excluded.register_begin_wh, register_end_wh = excluded.register_end_wh,
               stop_reason = excluded.stop_reason, reservation_id = excluded.reservation_id,
               remote_start_id = excluded.remote_start_id, event_count = excluded.event_count,
               flags = excluded.flags, due_at = excluded.due_at, fold = excluded.fold;
    END IF;

    IF cardinality(s_station_id) > 0 THEN
        INSERT INTO sessions.stations AS s (station_id, unattributed_wh, unsettled, fold)
        SELECT n.station_id, n.unattributed * 0.000001, string_to_array(n.unsettled, ',')::uuid[], n.fold
          FROM unnest(s_station_id, s_unattributed, s_unsettled, s_fold)
               AS n (station_id, unattributed, unsettled, fold)
            ON CONFLICT (station_id) DO UPDATE
           SET unattributed_wh = excluded.unattributed_wh, unsettled = excluded.unsettled, fold = excluded.fold;
    END IF;

    IF new_shapes <> '' THEN
        INSERT INTO sessions.sample_shapes (
               shape_id, measurands, contexts, phases, locations, units, source_units, multipliers, signed)
        SELECT (v ->> 0)::bigint,
               ARRAY(SELECT jsonb_array_elements_text(v -> 1)), ARRAY(SELECT jsonb_array_elements_text(v -> 2)),
               ARRAY(SELECT jsonb_array_elements_text(v -> 3)), ARRAY(SELECT jsonb_array_elements_text(v -> 4)),
               ARRAY(SELECT jsonb_array_elements_text(v -> 5)), ARRAY(SELECT jsonb_array_elements_text(v -> 6)),
               ARRAY(SELECT jsonb_array_elements_text(v -> 7)::int),
               ARRAY(SELECT jsonb_array_elements_text(v -> 8)::boolean)
          FROM jsonb_array_elements(new_shapes::jsonb) AS v
            ON CONFLICT DO NOTHING;
    END IF;

    IF new_signed <> '' THEN
        INSERT INTO sessions.signed_values (
               session_id, event_key, sample_index, station_at, context, data, encoding_method, signing_method,
               public_key)
        SELECT (v ->> 0)::uuid, (v ->> 1)::bigint, (v ->> 2)::int, to_timestamp((v ->> 3)::float8 / 1000), v ->> 4,
               convert_to(v ->> 5, 'UTF8'), v ->> 6, v ->> 7, v ->> 8
          FROM jsonb_array_elements(new_signed::jsonb) AS v;
    END IF;

    IF new_authorizations <> '' THEN
        INSERT INTO sessions.authorizations (
               station_id, received_at, action, id_token, id_token_type, status, session_id)
        SELECT v ->> 0, to_timestamp((v ->> 1)::float8 / 1000), v ->> 2, v ->> 3, nullif(v ->> 4, ''), v ->> 5,
               (v ->> 6)::uuid
          FROM jsonb_array_elements(new_authorizations::jsonb) AS v;
    END IF;

    IF new_reservations <> '' THEN
        INSERT INTO sessions.reservation_updates (station_id, reservation_id, status, received_at)
        SELECT v ->> 0, (v ->> 1)::bigint, v ->> 2, to_timestamp((v ->> 3)::float8 / 1000)
          FROM jsonb_array_elements(new_reservations::jsonb) AS v
            ON CONFLICT DO NOTHING;
    END IF;

    IF new_tariff_changes <> '' THEN
        INSERT INTO sessions.tariff_changes AS c (
               change_id, session_id, station_id, tariff_id, version, status, requested_by, requested_at, applies_from,
               command_id, reason)
        SELECT DISTINCT ON (v ->> 0)
               (v ->> 0)::uuid, (v ->> 1)::uuid, v ->> 2, v ->> 3, (v ->> 4)::int, v ->> 5, v ->> 6,
               to_timestamp((v ->> 7)::float8 / 1000), to_timestamp((v ->> 8)::float8 / 1000), v ->> 9, v ->> 10
          FROM jsonb_array_elements(new_tariff_changes::jsonb) WITH ORDINALITY AS e (v, place)
         ORDER BY v ->> 0, place DESC  -- asked and applied within one batch: the later one stands
            ON CONFLICT (change_id) DO UPDATE
           SET status = excluded.status, applies_from = excluded.applies_from, reason = excluded.reason,
               command_id = coalesce(excluded.command_id, c.command_id)
         WHERE c.status <> 'applied';
    END IF;

    IF told_reservations <> '' THEN
        INSERT INTO sessions.reservations AS r (
               reservation_key, station_id, reservation_id, ocpp_version, site_id, evse_id, connector_id, id_token,
               id_token_type, group_id, status, made_at, expires_at, ended_at, session_id, tariff_id, tariff_version,
               time_zone, command_id)
        SELECT (v ->> 0)::uuid, v ->> 1, (v ->> 2)::bigint, v ->> 3, v ->> 4, (v ->> 5)::bigint, (v ->> 6)::bigint,
               v ->> 7, v ->> 8, v ->> 9, v ->> 10, to_timestamp((v ->> 11)::float8 / 1000),
               to_timestamp((v ->> 12)::float8 / 1000), to_timestamp((v ->> 13)::float8 / 1000), (v ->> 14)::uuid,
               v ->> 15, (v ->> 16)::bigint, v ->> 17, v ->> 18
          FROM jsonb_array_elements(told_reservations::jsonb) AS v
            ON CONFLICT (reservation_key) DO UPDATE SET
               ocpp_version = excluded.ocpp_version, evse_id = excluded.evse_id, connector_id = excluded.connector_id,
               id_token = excluded.id_token, id_token_type = excluded.id_token_type, group_id = excluded.group_id,
               status = excluded.status, made_at = excluded.made_at, expires_at = excluded.expires_at,
               ended_at = excluded.ended_at, session_id = excluded.session_id;
    END IF;
END
$$;

COMMENT ON FUNCTION sessions.store IS 'Everything that folding a batch has changed.';
