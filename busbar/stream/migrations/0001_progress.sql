-- The stream runtime's own tables: how far each processor has come, and who may go on (rule 6).

CREATE SCHEMA stream;

-- One row per (group, partition number): consumer position, outbox, lease and fence in one.
CREATE TABLE stream.progress (
    group_name  text        NOT NULL,
    partition   int         NOT NULL,
    owner       text,                                   -- a worker id; NULL: free
    lease_until timestamptz,                            -- by this database's clock
    version     bigint      NOT NULL DEFAULT 0,         -- moved by every claim and every commit
    offsets     jsonb       NOT NULL DEFAULT '{}',      -- topic -> the next offset to read; absent: the log's start
    results     bytea       NOT NULL DEFAULT '',        -- of the last batch, until they are known to be durable
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, partition)
) WITH (
    -- Every commit rewrites its row: room for new versions on the same page, and a vacuum that keeps up.
    fillfactor = 10,
    toast_tuple_target = 8160,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 5000
);
ALTER TABLE stream.progress ALTER COLUMN results SET STORAGE EXTERNAL;

-- Who is there to share the partitions. A worker id is fresh per process start.
CREATE TABLE stream.workers (
    group_name   text        NOT NULL,
    worker_id    text        NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    PRIMARY KEY (group_name, worker_id)
) WITH (fillfactor = 50);

-- Moves the rows of one batch, all or none. Called inside the transaction that stores the batch's state, or in one
-- statement with the function that does. A worker that has been overtaken gets BB001, with the partitions that it has
-- lost as a JSON array in the detail, and its transaction is gone.
CREATE FUNCTION stream.advance(
    the_group text, worker text, lease_seconds double precision,
    partitions int[], versions bigint[], new_offsets jsonb[], new_results bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moved int[];
BEGIN
    WITH updated AS (
        UPDATE stream.progress AS p
        SET version = p.version + 1,
            offsets = p.offsets || b.offsets,
            results = b.results,
            lease_until = clock_timestamp() + make_interval(secs => lease_seconds),
            updated_at = clock_timestamp()
        FROM unnest(partitions, versions, new_offsets, new_results) AS b (partition, version, offsets, results)
        WHERE p.group_name = the_group AND p.partition = b.partition AND p.version = b.version AND p.owner = worker
        RETURNING p.partition
    )
    SELECT array_agg(updated.partition) INTO moved FROM updated;
    IF coalesce(cardinality(moved), 0) < cardinality(partitions) THEN
        RAISE EXCEPTION 'overtaken by another worker' USING ERRCODE = 'BB001', DETAIL = (
            SELECT json_agg(lost) FROM unnest(partitions) AS lost WHERE lost <> ALL (coalesce(moved, '{}'))
        )::text;
    END IF;
END
$$;
