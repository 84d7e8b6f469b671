-- One sale, one transaction, one round trip: a seat is locked no longer than the engine needs.
-- A repeated request gets the answer that it got before. Answers no row when nothing is free.
--
-- The search locks nothing, and the conditional UPDATE decides. A search that locks what it looks
-- at, with FOR UPDATE SKIP LOCKED, collapses under a hundred connections: every row that it passes
-- is locked and unlocked beside the locks of all the others. Buyers who ask at once are spread over
-- the first 64 free seats, so that few want the same, and early seats still fill first.
CREATE PROCEDURE sell(
  the_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin,
  the_run SMALLINT UNSIGNED,
  the_legs BIGINT UNSIGNED
)
BEGIN
  DECLARE the_seat, the_number, skip BIGINT UNSIGNED;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
  DECLARE CONTINUE HANDLER FOR NOT FOUND BEGIN END;
  START TRANSACTION;
  SELECT seat, number INTO the_seat, the_number FROM orders WHERE id = the_id;
  IF the_seat IS NULL THEN
    SET skip = FLOOR(RAND() * 64);
    search: LOOP
      SET the_seat = NULL;
      SELECT seat INTO the_seat FROM seat WHERE run = the_run AND (legs & the_legs) = 0
        LIMIT 1 OFFSET skip;
      IF the_seat IS NULL THEN
        IF skip = 0 THEN LEAVE search; END IF;
        SET skip = 0;
      ELSE
        UPDATE seat SET legs = legs | the_legs
          WHERE run = the_run AND seat = the_seat AND (legs & the_legs) = 0;
        IF ROW_COUNT() = 1 THEN
          INSERT INTO orders (id, run, seat, legs) VALUES (the_id, the_run, the_seat, the_legs);
          SET the_number = LAST_INSERT_ID();
          LEAVE search;
        END IF;
      END IF;
    END LOOP;
  END IF;
  COMMIT;
  SELECT the_seat, the_number FROM DUAL WHERE the_seat IS NOT NULL;
END
