-- Who holds which socket, and what became of each command. Written by the router alone; the API reads it.

CREATE SCHEMA IF NOT EXISTS router;
COMMENT ON SCHEMA router IS 'Presence of stations and the life of commands. Written by the router.';

CREATE TABLE router.edges (
    edge text PRIMARY KEY,
    edge_instance text NOT NULL,
    edge_partition integer NOT NULL,
    event text NOT NULL,
    connections integer NOT NULL,
    address text NOT NULL,
    last_seen timestamptz NOT NULL,
    instance_since timestamptz NOT NULL,
    past_instances jsonb NOT NULL DEFAULT '[]',
    silent boolean NOT NULL DEFAULT false,
    partition integer NOT NULL
) WITH (fillfactor = 30);
COMMENT ON TABLE router.edges IS 'Edge pods, folded from csms.edges. A row stays when its pod is gone.';
COMMENT ON COLUMN router.edges.event IS 'The last that was heard: started, alive, draining or stopped.';
COMMENT ON COLUMN router.edges.last_seen IS 'By the clock of the edge.';
COMMENT ON COLUMN router.edges.past_instances IS 'Instances that a later one has replaced; their connections are void.';
COMMENT ON COLUMN router.edges.silent IS 'Not heard of for so long that it counts as gone until it is heard of again.';
COMMENT ON COLUMN router.edges.partition IS 'Of csms.edges: its owner among the routers watches this edge.';

CREATE TABLE router.connections (
    station_id text PRIMARY KEY,
    partition integer NOT NULL,
    connection_id text NOT NULL,
    edge text NOT NULL,
    edge_instance text NOT NULL,
    edge_partition integer NOT NULL,
    ocpp_version text NOT NULL,
    subprotocol text NOT NULL,
    remote_address text NOT NULL,
    security_profile integer NOT NULL,
    connected_at timestamptz NOT NULL,
    disconnected_at timestamptz,
    online boolean NOT NULL,
    close_code integer NOT NULL DEFAULT 0,
    close_reason text NOT NULL DEFAULT '',
    unreachable boolean NOT NULL DEFAULT false,
    others jsonb NOT NULL DEFAULT '[]',
    close_due_at timestamptz
) WITH (fillfactor = 70);
COMMENT ON TABLE router.connections IS 'The current connection of each station that ever connected: the newest open one, else the last.';
COMMENT ON COLUMN router.connections.online IS 'The connection is open and its edge is alive.';
COMMENT ON COLUMN router.connections.unreachable IS 'Open as far as is known, but its edge is silent; it may come back.';
COMMENT ON COLUMN router.connections.others IS 'Older connections that are still open, and the last closed ones, so that a late record of theirs changes nothing.';
COMMENT ON COLUMN router.connections.close_due_at IS 'When the older connections that are still open are told to close.';

-- Which edges hold sockets, and the sockets of an edge that has died: without reading the connections of living ones.
CREATE INDEX connections_online ON router.connections (edge, edge_instance, station_id) WHERE online;
CREATE INDEX connections_unreachable ON router.connections (edge, edge_instance) WHERE unreachable;
CREATE INDEX connections_close_due ON router.connections (close_due_at) WHERE close_due_at IS NOT NULL;

CREATE TABLE router.commands (
    command_id text PRIMARY KEY,
    partition integer NOT NULL,
    station_id text NOT NULL,
    action text NOT NULL,
    payload jsonb NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    deadline_at timestamptz NOT NULL,
    priority integer NOT NULL,
    park boolean NOT NULL,
    stage text NOT NULL,
    outcome text,
    attempts integer NOT NULL DEFAULT 0,
    answer jsonb,
    error_code text NOT NULL DEFAULT '',
    error_description text NOT NULL DEFAULT '',
    error_details jsonb,
    connection_id text NOT NULL DEFAULT '',
    edge text NOT NULL DEFAULT '',
    ocpp_version text NOT NULL DEFAULT '',
    tried jsonb NOT NULL DEFAULT '[]',
    handed_back jsonb NOT NULL DEFAULT '{}',
    dispatched_at timestamptz,
    sent_at timestamptz,
    finished_at timestamptz,
    waiting_since timestamptz,
    review_at timestamptz
) WITH (fillfactor = 60);
COMMENT ON TABLE router.commands IS 'CALLs to stations: where each stands, and its outcome.';
COMMENT ON COLUMN router.commands.stage IS 'received, parked, dispatched, sent or undelivered; once there is an outcome, the outcome.';
COMMENT ON COLUMN router.commands.outcome IS 'The first terminal stage: answered, error, timeout, offline, disconnected or rejected. Null: pending.';
COMMENT ON COLUMN router.commands.attempts IS 'Dispatches; the connection, edge and version are those of the last one.';
COMMENT ON COLUMN router.commands.tried IS 'The connections that it was dispatched to and that did not hand it back; it goes to none of them again.';
COMMENT ON COLUMN router.commands.handed_back IS 'When each connection last handed it back, in Unix milliseconds of its edge.';
COMMENT ON COLUMN router.commands.waiting_since IS 'Since when it has had no connection to go to.';
COMMENT ON COLUMN router.commands.review_at IS 'When the router looks at it again if nothing is heard.';

CREATE INDEX commands_station ON router.commands (station_id, requested_at DESC, command_id DESC);
CREATE INDEX commands_review ON router.commands (review_at) WHERE review_at IS NOT NULL;
CREATE INDEX commands_open ON router.commands (station_id) WHERE review_at IS NOT NULL;
CREATE INDEX commands_finished ON router.commands (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE router.command_events (
    command_id text NOT NULL,
    at timestamptz NOT NULL,
    stage text NOT NULL,
    source text NOT NULL,
    connection_id text NOT NULL,
    attempt integer NOT NULL,
    station_id text NOT NULL,
    edge text NOT NULL,
    error_code text NOT NULL,
    error_description text NOT NULL,
    PRIMARY KEY (command_id, at, stage, source, connection_id, attempt)
);
COMMENT ON TABLE router.command_events IS 'Every stage of every command, once; the payload of the outcome is in router.commands.';

CREATE FUNCTION router.instant(milliseconds bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN to_timestamp(milliseconds / 1000.0);

COMMENT ON FUNCTION router.instant IS 'Unix milliseconds as a timestamp.';

-- Writes what a batch changed. Each argument is a JSON array of rows, null if there are none; instants are in Unix
-- milliseconds. One JSON text costs the client a twentieth of one array per column, and the batch one round trip.
CREATE FUNCTION router.store(
    the_edges json, the_stations json, new_commands json, changed_commands json, history json
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF the_edges IS NOT NULL THEN
        INSERT INTO router.edges AS e (edge, edge_instance, edge_partition, event, connections, address, last_seen,
            instance_since, past_instances, silent, partition)
        SELECT r.edge, r.edge_instance, r.edge_partition, r.event, r.connections, r.address,
            router.instant(r.last_seen_ms), router.instant(r.instance_since_ms), r.past_instances, r.silent, r.partition
        FROM json_to_recordset(the_edges) AS r (edge text, edge_instance text, edge_partition int, event text,
            connections int, address text, last_seen_ms bigint, instance_since_ms bigint, past_instances jsonb,
            silent boolean, partition int)
        ON CONFLICT (edge) DO UPDATE SET edge_instance = excluded.edge_instance,
            edge_partition = excluded.edge_partition, event = excluded.event, connections = excluded.connections,
            address = excluded.address, last_seen = excluded.last_seen, instance_since = excluded.instance_since,
            past_instances = excluded.past_instances, silent = excluded.silent, partition = excluded.partition;
    END IF;
    IF the_stations IS NOT NULL THEN
        INSERT INTO router.connections AS c (station_id, partition, connection_id, edge, edge_instance, edge_partition,
            ocpp_version, subprotocol, remote_address, security_profile, connected_at, disconnected_at, online,
            close_code, close_reason, unreachable, others, close_due_at)
        SELECT r.station_id, r.partition, r.connection_id, r.edge, r.edge_instance, r.edge_partition, r.ocpp_version,
            r.subprotocol, r.remote_address, r.security_profile, router.instant(r.connected_at_ms),
            router.instant(r.disconnected_at_ms), r.online, r.close_code, r.close_reason, r.unreachable, r.others,
            router.instant(r.close_due_at_ms)
        FROM json_to_recordset(the_stations) AS r (station_id text, partition int, connection_id text, edge text,
            edge_instance text, edge_partition int, ocpp_version text, subprotocol text, remote_address text,
            security_profile int, connected_at_ms bigint, disconnected_at_ms bigint, online boolean, close_code int,
            close_reason text, unreachable boolean, others jsonb, close_due_at_ms bigint)
        ON CONFLICT (station_id) DO UPDATE SET partition = excluded.partition, connection_id = excluded.connection_id,
            edge = excluded.edge, edge_instance = excluded.edge_instance, edge_partition = excluded.edge_partition,
            ocpp_version = excluded.ocpp_version, subprotocol = excluded.subprotocol,
            remote_address = excluded.remote_address, security_profile = excluded.security_profile,
            connected_at = excluded.connected_at, disconnected_at = excluded.disconnected_at, online = excluded.online,
            close_code = excluded.close_code, close_reason = excluded.close_reason, unreachable = excluded.unreachable,
            others = excluded.others, close_due_at = excluded.close_due_at;
    END IF;
    IF new_commands IS NOT NULL THEN
        INSERT INTO router.commands AS c (command_id, partition, station_id, action, payload, requested_by,
            requested_at, deadline_at, priority, park, stage, outcome, attempts, answer, error_code, error_description,
            error_details, connection_id, edge, ocpp_version, tried, handed_back, dispatched_at, sent_at,
            finished_at, waiting_since, review_at)
        SELECT r.command_id, r.partition, r.station_id, r.action, r.payload, r.requested_by,
            router.instant(r.requested_at_ms), router.instant(r.deadline_at_ms), r.priority, r.park, r.stage, r.outcome,
            r.attempts, r.answer, r.error_code, r.error_description, r.error_details, r.connection_id, r.edge,
            r.ocpp_version, r.tried, r.handed_back, router.instant(r.dispatched_at_ms),
            router.instant(r.sent_at_ms), router.instant(r.finished_at_ms), router.instant(r.waiting_since_ms),
            router.instant(r.review_at_ms)
        FROM json_to_recordset(new_commands) AS r (command_id text, partition int, station_id text, action text,
            payload jsonb, requested_by text, requested_at_ms bigint, deadline_at_ms bigint, priority int, park boolean,
            stage text, outcome text, attempts int, answer jsonb, error_code text, error_description text,
            error_details jsonb, connection_id text, edge text, ocpp_version text, tried jsonb, handed_back jsonb,
            dispatched_at_ms bigint, sent_at_ms bigint, finished_at_ms bigint, waiting_since_ms bigint,
            review_at_ms bigint)
        ON CONFLICT (command_id) DO NOTHING;
    END IF;
    IF changed_commands IS NOT NULL THEN
        UPDATE router.commands AS c SET stage = r.stage, outcome = r.outcome, attempts = r.attempts, answer = r.answer,
            error_code = r.error_code, error_description = r.error_description, error_details = r.error_details,
            connection_id = r.connection_id, edge = r.edge, ocpp_version = r.ocpp_version, tried = r.tried,
            handed_back = r.handed_back, dispatched_at = router.instant(r.dispatched_at_ms),
            sent_at = router.instant(r.sent_at_ms), finished_at = router.instant(r.finished_at_ms),
            waiting_since = router.instant(r.waiting_since_ms), review_at = router.instant(r.review_at_ms)
        FROM json_to_recordset(changed_commands) AS r (command_id text, stage text, outcome text, attempts int,
            answer jsonb, error_code text, error_description text, error_details jsonb, connection_id text, edge text,
            ocpp_version text, tried jsonb, handed_back jsonb, dispatched_at_ms bigint, sent_at_ms bigint,
            finished_at_ms bigint, waiting_since_ms bigint, review_at_ms bigint)
        WHERE c.command_id = r.command_id;
    END IF;
    IF history IS NOT NULL THEN
        INSERT INTO router.command_events (command_id, at, stage, source, connection_id, attempt, station_id, edge,
            error_code, error_description)
        SELECT r.command_id, router.instant(r.at_ms), r.stage, r.source, r.connection_id, r.attempt, r.station_id,
            r.edge, r.error_code, r.error_description
        FROM json_to_recordset(history) AS r (command_id text, at_ms bigint, stage text, source text,
            connection_id text, attempt int, station_id text, edge text, error_code text, error_description text)
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;

COMMENT ON FUNCTION router.store IS 'Writes what a batch of the router changed.';
