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
    handed_back_at timestamptz,
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
COMMENT ON COLUMN router.commands.handed_back_at IS 'When its connection last handed it back, by the clock of the edge.';
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
